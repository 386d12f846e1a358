"""From one rollout batch to optimiser steps."""

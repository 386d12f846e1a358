"""What a sweep needs: checks, what is done already, what it will cost, what is written down before it runs."""

"""The rows of the metric table: (key, unit, reduction, meaning). Add a line here before logging a new key.

These are the only definitions of metrics; docs, README and reports print them. ``table.py`` explains placeholders and
reductions; a placeholder in a meaning has the value that it has in the key. The unit of a pure number is 1, or its
range if it has one. Only literals belong in this file.
"""

from __future__ import annotations

_DIVERSITY = (
    ("distinct_1", "0 to 1", "different tokens / tokens, over the responses of a prompt"),
    ("distinct_2", "0 to 1", "different pairs of neighbouring tokens / pairs, over the responses of a prompt"),
    ("distinct_3", "0 to 1", "different triples of neighbouring tokens / triples, over the responses of a prompt"),
    ("distinct_4", "0 to 1", "different runs of four tokens / runs of four, over the responses of a prompt"),
    ("ngram", "0 to 1", "n-gram diversity: mean of distinct_1 to distinct_4"),
    ("ead", "1", "distinct tokens over the number that uniform draws would give; does not fall with length"),
    ("self_bleu", "0 to 1", "mean unsmoothed BLEU-4 of a response against the others of its prompt; low is diverse"),
    ("distinct_responses", "0 to 1", "share of responses that are different token sequences within their prompt"),
    ("distinct_answers", "answers", "different final answers per prompt; unreadable ones do not count"),
    ("distinct_correct", "solutions", "different correct solutions per prompt"),
    ("answer_entropy", "nats", "entropy of the final answers of a prompt, unreadable ones as one class"),
)
_CALIBRATION = (
    (
        "ece",
        "0 to 1",
        "expected calibration error, 10 equal bins, confidence = exp(mean token log-prob of the response), as sampled",
    ),
    ("brier", "0 to 1", "mean squared difference of exp(mean token log-prob) and correctness"),
    ("auroc", "0 to 1", "chance that a correct response is more confident than an incorrect one; absent without both"),
    ("ece_majority", "0 to 1", "ece with confidence = share of the prompt's samples that give the response's answer"),
    ("brier_majority", "0 to 1", "mean squared difference of that share and correctness"),
    ("auroc_majority", "0 to 1", "AUROC of the agreement confidence"),
    ("ece_stated", "0 to 1", "ece with confidence = what the response says between confidence tags, where it does"),
    ("brier_stated", "0 to 1", "mean squared difference of the stated confidence and correctness"),
    ("auroc_stated", "0 to 1", "AUROC of the stated confidence"),
    ("stated_frac", "0 to 1", "share of responses that state a confidence; absent if none does"),
)
_SUPPORT = (
    ("srr", "0 to 1", "support retention rate P / (P + S) against the base model; 0 if empty"),
    ("ndr", "0 to 1", "net discovery rate E / (P + E)"),
    ("sds", "0 to 1", "support dynamic score, harmonic mean of srr and ndr"),
    ("nscr", "-1 to 1", "net support change rate (E - S) / (P + E + S)"),
    ("preserved", "problems", "P: solved at least once by base and by trained model"),
    ("expanded", "problems", "E: solved by the trained model only"),
    ("lost", "problems", "S: solved by the base model only"),
    ("unsolved", "problems", "O: solved by neither"),
)
_PHASES = (
    ("generate", "sampling the rollouts and judging them"),
    ("pack", "packing rollouts, shaping rewards, computing advantages"),
    ("reference", "the pass of the reference model"),
    ("prepare", "what the objective's members do once per rollout batch"),
    ("old", "the pass for old log-probs and entropy of rows that are not in the first update"),
    ("update", "forward and backward passes and optimiser steps"),
    ("sync", "handing the weights to the engine and probing them"),
    ("metrics", "computing the step's metrics"),
    ("eval", "evaluation"),
    ("accounting", "measuring entropy before and after the update on the same contexts"),
    ("ledger", "accounting for the entropy change of the updates, token by token"),
    ("checkpoint", "writing the checkpoint before this step"),
    ("record", "writing the line and the status of the step before this one"),
    ("mirror", "telling the process that copies to MLflow what is durable, before this step"),
    ("step", "the whole step"),
)

ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("policy/entropy", "nats", "mean", "exact full-vocabulary entropy per response token, at the sampling weights"),
    (
        "policy/entropy_t1",
        "nats",
        "mean",
        "exact entropy per response token at temperature 1, whatever that of the rollouts: comparable between them",
    ),
    (
        "policy/renyi2_entropy",
        "nats",
        "mean",
        "exact Renyi entropy of order 2, -log sum p^2, per response token; at most the entropy; where a member asks",
    ),
    ("policy/entropy_positive", "nats", "mean", "exact entropy per response token of positive advantage"),
    ("policy/entropy_negative", "nats", "mean", "exact entropy per response token of negative advantage"),
    ("policy/surprisal", "nats", "mean", "-log-prob of the sampled tokens: noisy, and not the entropy"),
    ("policy/certain_frac", "0 to 1", "mean", "share of response tokens with entropy below 0.05 nats"),
    ("policy/advantage_positive_frac", "0 to 1", "mean", "share of response tokens with positive advantage"),
    ("policy/kl_old", "nats", "mean", "k3 estimate of KL(sampling policy, policy before an update), mean over updates"),
    ("policy/clip_frac_low", "0 to 1", "mean", "share of response tokens whose gradient the lower clip removed"),
    ("policy/clip_frac_high", "0 to 1", "mean", "share of response tokens whose gradient the upper clip removed"),
    (
        "policy/clip_frac_dual",
        "0 to 1",
        "mean",
        "share of response tokens whose gradient the dual clip removed",
    ),
    (
        "policy/weight_zero_frac",
        "0 to 1",
        "mean",
        "share of response tokens that a weight of 0 took out of an update (ERC, Clip_B, forking tokens ...)",
    ),
    ("policy/ratio_max", "1", "max", "largest importance ratio of the step"),
    ("policy/overflow_frac", "0 to 1", "mean", "float16: share of updates skipped because the gradient overflowed"),
    ("policy/loss_scale", "1", "mean", "float16: what the loss is multiplied by, after the update"),
    (
        "policy/support",
        "tokens",
        "last",
        "tokens that log-prob and entropy are over: the vocabulary without barred ones",
    ),
    ("policy/grad_norm", "1", "mean", "2-norm of the gradient before clipping, mean over updates"),
    ("policy/loss", "1", "mean", "objective as differentiated, mean over updates"),
    ("policy/lr", "1", "last", "learning rate of the last update"),
    ("policy/updates", "updates", "last", "optimiser steps since the start of the run, this step's included"),
    ("controller/<component>", "1", "last", "value of a controlled coefficient after the step"),
    ("entropy/delta_measured", "nats", "mean", "entropy after minus before the updates, per token, same contexts"),
    (
        "entropy/mutual_information",
        "nats",
        "mean",
        "of response and prompt among 8 prompts of the step: mean of log p(response after its prompt) minus the log of "
        "its mean probability after all of them; at most log 8, and 0 if responses say nothing of their prompts",
    ),
    ("entropy/kl_step", "nats", "mean", "k3 estimate of KL(policy before, after): first order holds while it is small"),
    (
        "entropy/delta_<quadrant>",
        "nats",
        "mean",
        "part of delta_measured by advantage sign and likelihood; they add up",
    ),
    ("entropy/delta_predicted_<estimator>", "nats", "mean", "mean first-order prediction at its best scale"),
    ("entropy/scale_<estimator>", "1", "last", "effective step size: least-squares factor of the prediction"),
    ("entropy/corr_pearson_<estimator>", "-1 to 1", "last", "correlation of predicted and measured change, tokens"),
    (
        "entropy/corr_spearman_<estimator>",
        "-1 to 1",
        "last",
        "rank correlation of predicted and measured change, tokens",
    ),
    ("entropy/rmse_<estimator>", "nats", "last", "root mean square error per token of the scaled prediction"),
    ("ledger/measured", "nats", "last", "change of mean entropy over the step's updates, on the ledger's contexts"),
    ("ledger/predicted", "nats", "sum", "first order: entropy gradient times the change of the weights, over updates"),
    ("ledger/residual", "nats", "last", "measured minus predicted: second order, all that noise alone can cause"),
    ("ledger/policy", "nats", "sum", "part of predicted: the gradient of the policy term"),
    (
        "ledger/policy_agreed",
        "nats",
        "sum",
        "what two halves of the prompts agree on of the policy term, twice the smaller: learning, not noise",
    ),
    ("ledger/policy_noise", "nats", "sum", "the rest of the policy term, on which the two halves differ"),
    ("ledger/regularizers", "nats", "sum", "part of predicted: the gradient of all regularizers"),
    ("ledger/regularizer_<component>", "nats", "sum", "part of it: one regularizer on the rollout batch's tokens"),
    ("ledger/auxiliary_<component>", "nats", "sum", "part of it: rows that the regularizer brings along"),
    ("ledger/momentum", "nats", "sum", "part of predicted: momentum of earlier updates"),
    ("ledger/weight_decay", "nats", "sum", "part of predicted: weight decay"),
    (
        "ledger/identity_error",
        "nats",
        "last",
        "distance of predicted from policy + regularizers + momentum + weight decay: rounding",
    ),
    (
        "ledger/tokens_error",
        "nats",
        "last",
        "distance of the sum over tokens from what the gradient did: rounding, sampling of rows, central differences",
    ),
    ("ledger/exact", "0 to 1", "last", "1: token influence by forward mode; 0: by central differences"),
    ("ledger/<quadrant>", "nats", "sum", "influence of tokens by sign of the effective coefficient and likelihood"),
    ("ledger/entropy_decile_<digit>", "nats", "sum", "influence of a tenth of the tokens, from certain to uncertain"),
    ("ledger/position_tenth_<digit>", "nats", "sum", "influence of the tokens in a tenth of their response"),
    ("ledger/corr_<predictor>", "-1 to 1", "last", "correlation over tokens of an estimator with the influence"),
    ("rollout/reward", "reward", "mean", "verifier's reward, before shaping"),
    (
        "rollout/reward_std",
        "reward",
        "last",
        "standard deviation of the verifier's reward over the rollouts of the step",
    ),
    ("rollout/num_tokens", "tokens", "sum", "sampled tokens"),
    ("rollout/length_mean", "tokens", "mean", "sampled tokens per response, end token included"),
    ("rollout/length_max", "tokens", "max", "longest response"),
    ("rollout/truncated_frac", "0 to 1", "mean", "share of responses that ran out of budget"),
    (
        "rollout/unverifiable_frac",
        "0 to 1",
        "mean",
        "share of responses whose answer could not be compared with the gold one: reward 0, though not shown incorrect",
    ),
    (
        "rollout/verifier_failed_frac",
        "0 to 1",
        "mean",
        "share of responses on which a verifier hung, crashed or raised",
    ),
    ("rollout/generated", "responses", "sum", "responses sampled, those thrown away by the rollout plan included"),
    (
        "rollout/generated_reward",
        "reward",
        "mean",
        "verifier's reward of all responses sampled, kept or not: comparable between plans",
    ),
    ("rollout/kept_frac", "0 to 1", "mean", "share of the responses sampled that was trained on"),
    ("rollout/zero_std_frac_all_incorrect", "0 to 1", "mean", "share of prompts with equal, failing rewards"),
    ("rollout/zero_std_frac_all_correct", "0 to 1", "mean", "share of prompts with equal, passing rewards"),
    *((f"diversity/{name}", unit, "last", f"rollouts: {meaning}") for name, unit, meaning in _DIVERSITY),
    *((f"calibration/{name}", unit, "last", f"rollouts: {meaning}") for name, unit, meaning in _CALIBRATION),
    ("engine/logprob_gap_max", "nats", "max", "largest difference of sampler and trainer log-prob on the same tokens"),
    ("engine/logprob_gap_mean", "nats", "mean", "mean absolute difference of sampler and trainer log-prob"),
    ("engine/sequence_gap_max", "nats", "max", "largest difference of sampler and trainer log-prob of a response"),
    ("engine/sequence_gap_mean", "nats", "mean", "mean absolute difference of sampler and trainer log-prob, responses"),
    ("engine/k3", "nats", "mean", "estimate of KL(sampler, trainer) on sampled tokens, before any truncation"),
    ("engine/ess_frac", "0 to 1", "last", "effective sample size of trainer / sampler ratios, over tokens"),
    ("engine/sequence_ess_frac", "0 to 1", "last", "effective sample size of trainer / sampler ratios, over responses"),
    ("engine/outside_frac", "0 to 1", "mean", "share of tokens with a trainer / sampler ratio outside 1/2 to 2"),
    ("engine/weight_version", "updates", "last", "optimiser steps the sampling weights had seen"),
    ("eval/<suite>/avg_at_<n>", "0 to 1", "last", "mean accuracy of <n> samples per problem"),
    (
        "eval/<suite>/pass_at_<k>",
        "0 to 1",
        "last",
        "unbiased chance that at least one of <k> samples is correct, mean over problems",
    ),
    (
        "eval/<suite>/maj_at_<k>",
        "0 to 1",
        "last",
        "expected accuracy of the most frequent answer of <k> of a problem's samples; ties: one of them at random",
    ),
    *(
        (f"eval/<suite>/{name}_se", "1", "last", f"standard error of {name} over problems, sd / sqrt(problems)")
        for name in ("avg_at_<n>", "pass_at_<k>", "maj_at_<k>")
    ),
    ("eval/<suite>/length_mean", "tokens", "last", "sampled tokens per response"),
    (
        "eval/<suite>/token_entropy",
        "nats",
        "last",
        "entropy per token, of what was sampled from; if the engine says it",
    ),
    ("eval/<suite>/truncated_frac", "0 to 1", "last", "share of responses that ran out of budget"),
    ("eval/<suite>/unverifiable_frac", "0 to 1", "last", "share of responses whose answer could not be compared"),
    (
        "eval/<suite>/contaminated_frac",
        "0 to 1",
        "last",
        "share of problems that are trained on, whole or in 8 to 13 words in a row; at step 0",
    ),
    ("eval/<suite>/verifier_failed_frac", "0 to 1", "last", "share of responses on which a verifier hung or crashed"),
    *((f"eval/<suite>/{name}", unit, "last", meaning) for name, unit, meaning in _DIVERSITY),
    *((f"eval/<suite>/{name}", unit, "last", meaning) for name, unit, meaning in _CALIBRATION),
    *((f"support/<suite>_{name}", unit, "last", meaning) for name, unit, meaning in _SUPPORT),
    *((f"time/{name}_s", "s", "last", f"seconds spent on {meaning}") for name, meaning in _PHASES),
    ("throughput/tokens_per_s", "tokens/s", "last", "sampled tokens / seconds of the whole step"),
    ("memory/peak_gib", "GiB", "max", "peak memory: on the device, or of the process on a CPU"),
)

Ends = tuple[float | None, float | None]
"""Least and largest value that a metric can take; None where there is no end."""

ANY: Ends = (None, None)
POSITIVE: Ends = (0.0, None)

RANGES: dict[str, Ends] = {
    "0 to 1": (0.0, 1.0),
    "-1 to 1": (-1.0, 1.0),
    "1": ANY,
    "reward": ANY,
    "policy/ratio_max": POSITIVE,
    "policy/grad_norm": POSITIVE,
    "policy/loss_scale": POSITIVE,
    "policy/lr": POSITIVE,
    "entropy/delta_measured": ANY,
    "entropy/delta_<quadrant>": ANY,
    "entropy/delta_predicted_<estimator>": ANY,
    **{row[0]: ANY for row in ROWS if row[0].startswith("ledger/") and row[1] == "nats" and "error" not in row[0]},
}
"""By key, else by unit; whatever is in neither (nats, tokens, seconds) is at least 0."""

BETTER: dict[str, str] = {
    **dict.fromkeys(("s", "GiB"), "lower"),
    **dict.fromkeys(("ece", "brier", "ece_majority", "brier_majority", "lost", "unsolved"), "lower"),
    **dict.fromkeys(("logprob_gap_max", "logprob_gap_mean", "rmse_<estimator>", "truncated_frac"), "lower"),
    **dict.fromkeys(("ece_stated", "brier_stated"), "lower"),
    **dict.fromkeys(
        ("auroc", "auroc_majority", "auroc_stated", "srr", "ndr", "sds", "nscr", "preserved", "expanded"), "higher"
    ),
    **dict.fromkeys(("reward", "generated_reward", "distinct_correct", "tokens/s"), "higher"),
    **dict.fromkeys(("avg_at_<n>", "pass_at_<k>", "maj_at_<k>"), "higher"),
    **dict.fromkeys(("corr_pearson_<estimator>", "corr_spearman_<estimator>"), "higher"),
}
"""Which values are better, other things being equal: by the last part of the key, else by unit; else neither is."""

---
title: Standard training facts
version: 1
---
// What goes wrong in training runs, as facts over what every recorded run already has: the numbers of `run.log` and
// the layers of `run.watch`. The names of metrics are conventions: loss, step_ms, data_ms, rss_mb. A fact whose numbers
// nobody logs has no items and never holds. `use "std.training"` brings all of it into a module of your own.

system Training {
    // Each fact reads a case of its own, so that its window is full of what it needs, however the numbers are logged.
    trace_schema {
        variant Signal {
            case Loss from "metrics.scalars" {
                loss: float
                rank: int
            }
            case Logged from "metrics.scalars" {
                nonfinite: int  // how many numbers of one `run.log` are NaN or infinite
                rank: int
            }
            case Timing from "metrics.scalars" {
                step_ms: float in ms  // a whole step, loading included
                data_ms: float in ms  // the part of it that waits for data
                rank: int
            }
            case Memory from "metrics.scalars" {
                rss_mb: float in MiB  // memory of the process, or of its accelerator
                rank: int
            }
            case Layer from "health.layer" {
                layer: string
                rank: int
                grad_norm: float?
                weight_norm: float?
                dead_share: float?
                nonfinite: float?
            }
        }
    }

    // What a loss gains or loses if it follows its line for as long again as the run has lasted, at least 500 values,
    // with two standard errors of that line. `length` is of the window that `slope` and `noise` come from.
    function reach(slope: float, noise: float, length: float, count: float) -> float {
        return (abs(slope) * length + 2 * sqrt(12 / length) * noise) * max(count, 500) / length
    }

    // Whether memory climbs by more than a twentieth along a line that explains 80% of its variance (a line explains
    // at most 75% of a single jump): n * slope > sqrt(12 * 0.8) * std.
    function climbs(rise: float in MiB, noise: float in MiB, level: float in MiB) -> boolean {
        return rise > 0.05 * level && rise > 3.1 * noise
    }

    knowledge {
        // A millionth of what other layers get, relative to the weights. Exactly nothing is dead, not vanishing.
        fact vanishing_gradients(t: Signal.Layer) {
            return count(t.grad_norm) over last 50 per layer, rank >= 50
                && min(t.grad_norm) over last 50 per layer, rank > 0
                && p50(t.grad_norm / t.weight_norm) over last 50 per layer, rank < 1e-6 * max(
                t.grad_norm / t.weight_norm,
            ) over last 1000 per rank
        }

        // The gradient is a hundred times as large as what it would change.
        fact exploding_gradients(t: Signal.Layer) {
            return count(t.grad_norm) over last 10 per layer, rank >= 10
                && p50(t.grad_norm / t.weight_norm) over last 10 per layer, rank > 100
        }

        fact nonfinite_values(t: Signal.Layer) {
            return max(t.nonfinite) over last 10 per layer, rank > 0
        }

        fact nonfinite_metrics(t: Signal.Logged) {
            return max(t.nonfinite) over last 10 per rank > 0
        }

        // More than three fifths of a layer's units without any gradient in every one of fifty batches.
        fact dead_units(t: Signal.Layer) {
            return count(t.dead_share) over last 50 per layer, rank >= 50
                && min(t.dead_share) over last 50 per layer, rank > 0.6
        }

        // As long a run again would move the loss by less than a twentieth, by its last 200 or 2000 values.
        fact plateau(t: Signal.Loss) {
            return count(t.loss) over last 200 per rank >= 200
                && reach(
                slope(t.loss) over last 200 per rank,
                std(t.loss) over last 200 per rank,
                200,
                count(t.loss) per rank,
            ) < 0.05 * abs(avg(t.loss) over last 200 per rank)
                || count(t.loss) over last 2000 per rank >= 2000
                && reach(
                slope(t.loss) over last 2000 per rank,
                std(t.loss) over last 2000 per rank,
                2000,
                count(t.loss) per rank,
            ) < 0.05 * abs(avg(t.loss) over last 2000 per rank)
        }

        // A loss among the last 20 that is no finite number; or, of a loss that is never negative, a level half as bad
        // again as the start, or twice as bad as the last 500, beyond its noise.
        fact divergence(t: Signal.Loss) {
            return count(t.loss - t.loss) over last 20 per rank < count() over last 20 per rank
                || count(t.loss) over last 20 per rank >= 20
                && min(t.loss) per rank >= 0
                && p50(t.loss) over last 20 per rank - std(t.loss) over last 20 per rank > min(
                1.5 * first(t.loss) per rank,
                2 * p50(t.loss) over last 500 per rank,
            )
        }

        fact memory_growth(t: Signal.Memory) {
            return count(t.rss_mb) over last 200 per rank >= 200
                && climbs(
                200 * slope(t.rss_mb) over last 200 per rank,
                std(t.rss_mb) over last 200 per rank,
                first(t.rss_mb) over last 200 per rank,
            )
                || count(t.rss_mb) over last 2000 per rank >= 2000
                && climbs(
                2000 * slope(t.rss_mb) over last 2000 per rank,
                std(t.rss_mb) over last 2000 per rank,
                first(t.rss_mb) over last 2000 per rank,
            )
        }

        fact data_stall(t: Signal.Timing) {
            return count(t.data_ms) over last 50 per rank >= 50
                && p50(t.data_ms) over last 50 per rank > 0.5 * p50(t.step_ms) over last 50 per rank
        }

        rule "Let the gradient through" {
            when: vanishing_gradients
            recommend: "Residual connections, normalisation or another activation: these layers learn nothing."
        }
        rule "Tame the gradient" {
            when: exploding_gradients
            recommend: "Clip gradients, lower the learning rate, or check the scale of the initial weights."
        }
        rule "Find where numbers end" {
            when: nonfinite_values
            recommend: "Look at this layer and step first: torch.autograd.detect_anomaly shows the operation."
        }
        rule "Look at the number" {
            when: nonfinite_metrics
            recommend: "A metric is NaN or infinite: an average over nothing, or the first sign of worse."
        }
        rule "Revive the units" {
            when: dead_units
            recommend: "A lower learning rate, a leaky activation, or a fresh start of the biases."
        }
        rule "Change something" {
            when: plateau
            recommend: "A learning-rate schedule, more capacity, or the end of the run: more of the same gains little."
        }
        rule "Stop and step back" {
            when: divergence
            recommend: "Go back to the last good checkpoint with a lower learning rate."
        }
        rule "Find what is kept" {
            when: memory_growth
            recommend: "Log loss.item(), not tensors that hold their graph; look for lists that only grow."
        }
        rule "Feed the model" {
            when: data_stall
            recommend: "More loader workers, prefetching, or data closer to the trainer: half of each step waits."
        }
    }
}

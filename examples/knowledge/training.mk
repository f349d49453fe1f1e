---
title: Facts about our own training runs
---
// The standard facts, one of our own beside them, and rules that ask both. Load it with
// `morphogen know load examples/knowledge/training.mk`; examples/training_facts.py does, and trains something to judge.
use "std.training"

system Digits {
    trace_schema {
        variant Signal {
            case Accuracy from "metrics.scalars" {
                accuracy: float
                rank: int
            }
        }
    }

    knowledge {
        // Ten classes: who guesses is right one time in ten.
        fact at_chance(t: Signal.Accuracy) {
            return count(t.accuracy) over last 50 per rank >= 50
                && avg(t.accuracy) over last 50 per rank < 0.15
        }

        // The library's plateau takes 200 losses; our runs are short.
        fact flat(t: Training.Loss) {
            return count(t.loss) over last 100 per rank >= 100
                && reach(
                slope(t.loss) over last 100 per rank,
                std(t.loss) over last 100 per rank,
                100,
                count(t.loss) per rank,
            ) < 0.05 * avg(t.loss) over last 100 per rank
        }

        rule "Give the layer its biases back" {
            when: at_chance and Training.dead_units
            recommend: "Whole layers are silent: set their biases to zero and start again."
        }
        rule "Stop early" {
            when: flat and not at_chance
            recommend: "It has learned what it will learn."
        }
    }
}

// Tune a matrix product on this machine, from three plain loops to blocks that fit its caches.
//
//     pip install 'morphogen[broker,loops,report]' numba
//     morphogen loop run examples/knowledge/matmul.mk --live
//
// The kernels and the one function that measures them are in matmul/kernels.py. A smaller problem, in seconds:
//
//     morphogen loop run examples/knowledge/matmul.mk --live --set size=96

system MatMul {
    model {
        state size: int = 512
    }

    trace_schema {
        variant TraceItem {
            case Performance {
                order: string
                block: string
                tile_i: int
                tile_j: int
                tile_k: int
                threads: int
                fastmath: boolean
                milliseconds: float in ms
                gflops: float in GFLOPS
                speedup: float  // over three plain loops
                of_numpy: float  // the speed as a share of NumPy's, measured beside it
            }
            case Correctness {
                passed: boolean
                max_error: float
            }
        }
    }

    knowledge {
        // A result that is not NumPy's never wins, however fast it was.
        invariant Correct {
            assert: trace.latest(Correctness).passed == true
        }

        // Only orders with a row to walk along can be blocked in registers; the others are not measured with blocks.
        invariant Blockable {
            assert: order == "ikj" || block == "1x1"
        }

        fact is_cache_friendly_order(t: TraceItem.Performance) {
            return t.order == "ikj" && t.speedup >= 2
        }
        fact is_cache_hostile_order(t: TraceItem.Performance) {
            return t.order == "jki" && t.speedup < 2
        }
        fact pays_in_registers(t: TraceItem.Performance) {
            return t.block == "2x4"
                && t.gflops > 1.1 * p90(t.gflops) over last 60
                && count() over last 60 >= 20
        }
        fact beats_naive_5x(t: TraceItem.Performance) {
            return t.speedup >= 5
        }
        fact is_at_half_of_numpy(t: TraceItem.Performance) {
            return t.of_numpy >= 0.5
        }

        rule "Walk along rows" {
            when: is_cache_friendly_order
            apply: "order ikj: the inner loop reads B and writes C in the order in which they lie"
        }
        rule "Leave columns alone" {
            when: is_cache_hostile_order
            apply: "drop order jki: each step of its inner loop is another cache line"
        }
        rule "Keep sums in registers" {
            when: [pays_in_registers, beats_naive_5x]
            apply: "block 2x4: what is loaded of B is used twice, what is loaded of C four times"
        }

        hint "Packing" {
            trigger: "the best is far from NumPy with tiles that fit the first-level cache"
            suggestion: "copy the tiles of B into one stretch of memory first, as BLAS does"
        }
    }

    engineering_loop Tune {
        parameter order: ["ijk", "ikj", "jki"]
        parameter block: ["1x1", "1x4", "2x4"]
        parameter tile_i: [16, 64, 256]
        parameter tile_j: [32, 64, 128, 256, 512]
        parameter tile_k: [8, 16, 32, 64, 128]
        parameter threads: [1, 2]
        parameter fastmath: [false, true]

        measure {
            tool: "matmul.kernels:measure"
            arguments: { size: size }
            metric: Performance.gflops
            objective: maximize
            repeats: 3
            warmup: 1
            prune: 0.2
            timeout: 1 min
        }

        baseline: {
            order: "ijk"
            block: "1x1"
            tile_i: 512
            tile_j: 512
            tile_k: 512
            threads: 1
            fastmath: false
        }
        confirm: 7
        sampler: tpe
        startup: 16
        budget: 70
        seed: 1
    }

    build {
        artifact "report.md" {
            generator: report
            title: "A matrix product, tuned"
            input: trace.all
        }
        artifact "trials.csv" {
            generator: csv
            input: trace.all
        }
    }
}

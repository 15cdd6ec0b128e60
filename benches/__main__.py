"""Runs all benchmarks and prints one report: `python -m benches`."""

from benches import (
    bench_codec,
    bench_expiry,
    bench_fanout,
    bench_graph,
    bench_put,
    bench_saver,
    bench_sessions,
    bench_size,
    bench_sweep,
)
from benches.options import parser, run

if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument(
        "--all", action="store_true", help="other savers at 1,000 supersteps, too"
    )
    modules = (
        bench_saver,
        bench_put,
        bench_fanout,
        bench_graph,
        bench_sessions,
        bench_size,
        bench_expiry,
        bench_sweep,
        bench_codec,
    )
    run([module.BENCHMARK for module in modules], arguments)

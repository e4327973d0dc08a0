//! The classifier on the CPU: its training step and its search, in weights a second.
//!
//! `cargo bench` compares with the run before. `elmo bench` measures on any device; see `NOTES.md`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use elmo::{
    bench::{Options, Shape, Workload},
    classifier::Format,
    device::Compute,
};

const SHAPES: [(usize, usize, usize); 3] = [(10_000, 128, 64), (10_000, 768, 16), (50_000, 128, 8)];
fn classifier(criterion: &mut Criterion) {
    let compute = Compute::open(Some("cpu"), false, 0).expect("a build with the CPU");
    for (labels, dim, batch) in SHAPES {
        let shape = Shape { name: format!("{labels}x{dim}, batch {batch}"), labels, dim, batch, positives: 3.0 };
        let mut group = criterion.benchmark_group(&shape.name);
        group.throughput(Throughput::Elements((labels * dim) as u64));
        group.sample_size(20);
        for precision in Format::WEIGHTS {
            let options = Options { precision, operands: precision, ..Options::default() };
            let mut workload = Workload::new(&compute, &shape, &options);
            let id = |task| BenchmarkId::new(task, precision);
            group.bench_function(id("step"), |bencher| bencher.iter(|| workload.step()));
            group.bench_function(id("top5"), |bencher| bencher.iter(|| workload.top_k()));
        }
        group.finish();
    }
}

criterion_group!(benches, classifier);
criterion_main!(benches);

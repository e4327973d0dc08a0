use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use elmo_kernels::timing::{Grain, record};
use elmo_kernels::*;
use rayon::prelude::*;
use std::collections::BTreeMap;
fn main() {
    let device = Device::cuda(0);
    let args: Vec<String> = std::env::args().collect();
    let shapes = [
        ("at670k", 670091usize, 256usize, 5.5f64),
        ("a3m", 2812281, 128, 36.4),
        ("1.3m", 1305265, 512, 22.1),
        ("a670k", 670091, 64, 5.8),
        ("paper", 8623847, 128, 9.3),
    ];
    let dim = 768;
    for (name, labels, batch, pos) in shapes {
        if args.len() > 1 && !args[1..].iter().any(|a| a == name) {
            continue;
        }
        let gbytes: usize = std::env::var("GMIB")
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(32);
        let chunk = (gbytes << 20) / (2 * batch.next_multiple_of(64));
        let rows_per = (1usize << 30) / dim;
        let mut segs = vec![];
        let mut first = 0;
        while first < labels {
            let n = rows_per.min(labels - first);
            let segment = Segment {
                first_label: first as u64,
                labels: n,
                dim,
                precision: Precision::E4m3,
                head: None,
            };
            let mut words = vec![0u32; segment.words()];
            words
                .par_chunks_mut(1 << 16)
                .enumerate()
                .for_each(|(c, w)| {
                    for (i, w) in w.iter_mut().enumerate() {
                        let h = random::hash((c << 16 | i) as u32 ^ first as u32);
                        // magnitudes of about 2^-9 .. 2^-4
                        *w = (h & 0x8080_8080) | ((h >> 1) & 0x1f1f_1f1f);
                    }
                });
            let n = words.len();
            segs.push((
                segment,
                Some(Tensor::<1, Int>::from_data(
                    TensorData::new(words, [n]),
                    (&device, DType::U32),
                )),
            ));
            first += segment.labels;
        }
        let x: Vec<f32> = (0..batch * dim)
            .map(|i| (random::hash(i as u32) as f32 / 2147483648.0 - 1.0) * 1.7)
            .collect();
        let x = Tensor::<2>::from_data(TensorData::new(x, [batch, dim]), (&device, DType::F32));
        let np = (batch as f64 * pos) as usize;
        let positives = Positives::new(
            (0..np)
                .map(|i| {
                    (
                        (random::hash(i as u32 ^ 77) as usize % labels) as u32,
                        (i % batch) as u32,
                    )
                })
                .collect(),
        );
        let mut step_once = |n: u64| {
            let mut g = Tensor::<2>::zeros([batch, dim], (&device, DType::F32));
            for (segment, words) in segs.iter_mut() {
                let step = Step {
                    operands: Operands::E4m3,
                    chunk,
                    learning_rate: 0.05,
                    weight_decay: 0.0,
                    rounding_key: Step::rounding_key(1, n),
                    loss: false,
                };
                let c = Tensor::<1, Int>::from_data(
                    TensorData::new(vec![0u32], [1]),
                    (&device, DType::U32),
                );
                let out = classifier_step(
                    *segment,
                    step,
                    words.take().unwrap(),
                    c,
                    x.clone(),
                    positives.clone(),
                    g,
                );
                *words = Some(out.words);
                g = out.input_gradient;
            }
            g
        };
        let t0 = std::time::Instant::now();
        let g = step_once(0);
        let s: f32 = g.sum().into_scalar();
        println!("{name}: first {:.2}s sum {s}", t0.elapsed().as_secs_f64());
        let mut whole = vec![];
        for n in 0..12 {
            let (_, t) = record(Grain::Operations, || {
                let g = step_once(n);
                let _: f32 = g.sum().into_scalar();
            });
            whole.push(t.iter().map(|t| t.seconds).sum::<f64>() * 1e3);
        }
        whole.sort_by(f64::total_cmp);
        let t0 = std::time::Instant::now();
        for n in 0..20 {
            let _ = step_once(n);
        }
        device.sync().unwrap();
        let free = t0.elapsed().as_secs_f64() / 20.0 * 1e3;
        let mut per: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
        for n in 0..3 {
            let (_, t) = record(Grain::Kernels, || {
                let g = step_once(n);
                let _: f32 = g.sum().into_scalar();
            });
            for t in t {
                let e = per.entry(t.name).or_default();
                e.0 += t.seconds * 1e3 / 3.0;
                e.1 += 1;
            }
        }
        let fl = 2.0 * labels as f64 * dim as f64 * batch as f64 / 1e9;
        println!(
            "{name}: step device {:.3} ms (min {:.3}), free {free:.3} ms, chunk {chunk}",
            whole[6], whole[0]
        );
        for (k, (ms, n)) in per {
            println!(
                "   {k:16} {ms:8.3} ms {:3} launches  {:6.1} TF",
                n / 3,
                fl / ms
            );
        }
        let u = device.memory_pool_usage().unwrap();
        println!(
            "   memory reserved {} MiB in use {} MiB",
            u.bytes_reserved >> 20,
            u.bytes_in_use >> 20
        );
        // search
        let mut times = vec![];
        for _ in 0..8 {
            let (_, t) = record(Grain::Operations, || {
                let mut sc =
                    Tensor::<2>::full([batch, 5], f32::NEG_INFINITY, (&device, DType::F32));
                let mut la = Tensor::<2, Int>::full([batch, 5], -1, (&device, DType::I32));
                for (segment, words) in segs.iter() {
                    (sc, la) = classifier_search(
                        *segment,
                        Search {
                            operands: Operands::E4m3,
                            chunk,
                            k: 5,
                        },
                        words.clone().unwrap(),
                        x.clone(),
                        sc,
                        la,
                    );
                }
                let _: f32 = sc.sum().into_scalar();
            });
            times.push(t.iter().map(|t| t.seconds).sum::<f64>() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let (_, t) = record(Grain::Kernels, || {
            let mut sc = Tensor::<2>::full([batch, 5], f32::NEG_INFINITY, (&device, DType::F32));
            let mut la = Tensor::<2, Int>::full([batch, 5], -1, (&device, DType::I32));
            for (segment, words) in segs.iter() {
                (sc, la) = classifier_search(
                    *segment,
                    Search {
                        operands: Operands::E4m3,
                        chunk,
                        k: 5,
                    },
                    words.clone().unwrap(),
                    x.clone(),
                    sc,
                    la,
                );
            }
            let _: f32 = sc.sum().into_scalar();
        });
        let mut per: BTreeMap<&str, f64> = BTreeMap::new();
        for t in t {
            *per.entry(t.name).or_default() += t.seconds * 1e3;
        }
        println!("   top-5 {:.3} ms {per:?}", times[4]);
    }
}

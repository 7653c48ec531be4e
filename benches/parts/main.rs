//! How long the parts take that a message passes through, each by itself; what comes of each is
//! checked in every run.
//!
//! ```text
//! cargo bench --features __internals --bench parts                # all, in about two minutes
//! cargo bench --features __internals --bench parts -- lane        # some
//! cargo bench --features __internals --bench parts -- --test      # each once
//! ```
//!
//! Inputs are seeded. What a run uses up is made before the clock runs, and what it made is looked
//! at after it has stopped. Publishing writes to real sockets, so the kernel's time is in it.

#![allow(clippy::expect_used, reason = "a measurement that fails stops")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers are small")]

mod inputs;
mod operations;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use peregrine::internals::Post;

use self::operations::{Operation, now, parts};

/// Envelopes that cross from one thread to another at a time.
const LETTER_COUNT: usize = 1000;

/// How long so many runs take, without what is done before and after each.
fn timed(operation: &mut dyn Operation, count: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..count {
        operation.prepare();
        let start = now();
        operation.run();
        total += start.elapsed();
        operation.check();
    }
    total
}

fn all_parts(criterion: &mut Criterion) {
    for part in parts() {
        let (group, id) = part.name.split_once('/').expect("a group");
        let mut group = criterion.benchmark_group(group);
        group.throughput(Throughput::Elements(part.item_count as u64));
        // Made by the first call, for it is called for each sample, or not at all.
        let mut operation = None;
        group.bench_function(id, |bencher| {
            let operation = operation.get_or_insert_with(|| (part.make)());
            bencher.iter_custom(|count| timed(&mut **operation, count));
        });
        group.finish();
    }
}

/// Another thread sends; this one sleeps until it is woken, and takes what is there.
fn across_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox");
    group.throughput(Throughput::Elements(LETTER_COUNT as u64));
    group.bench_function("cross-thread", |bencher| {
        let (sender, mut post) = Post::new().expect("a poll");
        let (begin, begun) = mpsc::channel::<()>();
        let writer = thread::spawn(move || {
            let frame = Bytes::from(vec![0x82; 66]);
            while begun.recv().is_ok() {
                assert_eq!(sender.send(&frame, LETTER_COUNT), LETTER_COUNT, "it is full");
            }
        });
        bencher.iter(|| {
            begin.send(()).expect("the other thread");
            let mut left = LETTER_COUNT;
            while left > 0 {
                post.wait().expect("a wake-up");
                let (count, bytes) = post.take();
                assert_eq!(bytes, count * 66);
                left -= count;
            }
        });
        drop(begin);
        writer.join().expect("the other thread");
    });
    group.finish();
}

fn configuration() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = all;
    config = configuration();
    targets = all_parts, across_threads
}
criterion_main!(all);

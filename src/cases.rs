//! Properties of generated inputs, by proptest: how many cases, from which seed.
//!
//! The same cases each time: `PROPTEST_CASES` makes them more, `PROPTEST_RNG_SEED` others. A case
//! that fails is printed, made as small as proptest can; it then becomes a test with a name. No
//! regression files are kept.

use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Holds a property to so many generated cases; it fails by panicking.
pub(crate) fn check<S>(case_count: u32, strategy: S, property: impl Fn(S::Value))
where
    S: Strategy,
    S::Value: Debug,
{
    // It reads the environment.
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = case_count;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(7);
    }
    config.failure_persistence = None;
    let outcome = TestRunner::new(config).run(&strategy, |case| {
        property(case);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

//! `make fuzz`: runs each target on random inputs, for a time or a number of runs. It needs only stable Rust and no
//! sanitizer, because the crate forbids unsafe code. It looks for panics, and for verdicts that differ from those of a
//! second, independent verifier.
//!
//! `fuzz TARGET|all SECONDS [RUNS]`. An input that fails is written to `sdk/fuzz/inputs/TARGET/`, and `make test` runs it
//! again from there. With `FUZZ_KEEP=1`, one input for each verdict is kept there.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "a tool")]

mod targets;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use targets::{TARGETS, Target};

/// A generator of random numbers. Its seed is printed, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn input(&mut self) -> Vec<u8> {
        let length = self.next() % 400;
        let mut input: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        input.truncate(usize::try_from(length).unwrap());
        input
    }
}

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/inputs").join(target)
}

fn keep(target: &str, name: &str, input: &[u8]) {
    std::fs::create_dir_all(folder(target)).unwrap();
    std::fs::write(folder(target).join(name), input).unwrap();
}

fn run(name: &str, target: Target, time: Duration, runs: u64, seed: u64) -> bool {
    let (began, mut random) = (Instant::now(), Random(seed));
    let mut verdicts: BTreeMap<String, u64> = BTreeMap::new();
    let keeping = std::env::var_os("FUZZ_KEEP").is_some();
    let mut count = 0;
    while count < runs && (count % 1_024 != 0 || began.elapsed() < time) {
        let input = random.input();
        let Ok(verdict) = std::panic::catch_unwind(|| target(&input)) else {
            keep(name, &format!("failed-{seed:x}-{count}"), &input);
            println!("{name}: run {count} of seed {seed:#x} failed; its input is in {}", folder(name).display());
            return false;
        };
        let times = verdicts.entry(verdict.clone()).or_default();
        if keeping && *times == 0 {
            keep(name, &verdict.replace(' ', "-"), &input);
        }
        *times += 1;
        count += 1;
    }
    println!("{name}: {count} runs in {:.1} s, seed {seed:#x}", began.elapsed().as_secs_f64());
    for (verdict, count) in &verdicts {
        println!("  {count:>10}  {verdict}");
    }
    true
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let wanted = arguments.next().unwrap_or_else(|| "all".to_owned());
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    let runs = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    let seed =
        std::env::var("FUZZ_SEED").ok().and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    let seed = seed.unwrap_or_else(|| {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    });
    let mut good = true;
    for (name, target) in TARGETS.iter().filter(|(name, _)| wanted == "all" || wanted == *name) {
        good &= run(name, *target, Duration::from_secs(seconds), runs, seed);
    }
    ExitCode::from(u8::from(!good))
}

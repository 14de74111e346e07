//! What every room may use: time, pacing, metrics, telemetry. No nouns of the domain.

pub mod body_budget;
pub mod child_process;
pub mod clock;
pub mod columns;
pub mod finding;
pub mod labels;
pub mod metrics;
pub mod named;
pub mod pace;
pub mod panics;
pub mod private_file;
pub mod rest;
pub mod stop;
pub mod suggest;
pub mod supervise;
pub mod telemetry;

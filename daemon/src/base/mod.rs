//! What every room may use: time, pacing, metrics, telemetry. No nouns of the domain.

pub mod clock;
pub mod finding;
pub mod labels;
pub mod metrics;
pub mod named;
pub mod pace;
pub mod private_file;
pub mod stop;
pub mod telemetry;

mod properties;
mod resets;
mod tables;
mod world;

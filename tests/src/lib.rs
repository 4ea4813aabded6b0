//! The shared parts of the system tests: cases, the beds they run on, and the reasons why a case
//! cannot run here.
//!
//! A case is a function of a bed that returns an error where a check failed. It builds the machine
//! through the library of the host command, so the tests use the same code as people do. It waits
//! for events, never for time alone.

mod case;
pub mod core;
pub mod core_file;
pub mod cuts;
pub mod faulty;
pub mod gpt;
mod hung;
mod lanes;
mod machine;
pub mod markdown;
pub mod modules;
pub mod nbd;
pub mod pace;
pub mod replay;
pub mod rooms;
pub mod scenario;
pub mod scene;
pub mod seeded_runs;
pub mod seeds;
pub mod several;
pub mod source;
pub mod space;
pub mod trials;
pub mod twin;

pub use case::{Case, run};
pub use machine::{expect_success, machine, plan_machine, test_kernel};

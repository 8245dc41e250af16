//! Chores of the project.

mod kernels;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Compile the CUDA kernels into crates/cuda/prebuilt (needs python3 and, once, PyPI)
    Kernels {
        /// Change nothing; fail if what is checked in is not what the sources give
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Kernels { check } => kernels::run(check),
    }
}

//! Chores of the project. There are none yet.

fn main() {}

//! The store against real git: what we write, git reads; what git does meanwhile, we survive.

mod files;
mod races;
mod remotes;
mod repositories;
mod support;
mod transactions;

//! Runs, events and evidence against real git and real processes.

mod commands;
mod crashes;
mod schemas;
mod stories;
mod support;
mod verified;

//! Tests of the plan: golden dry runs, and the model run through every failure of every call. They must not make a call.

mod cgroup;
mod explore;
mod findings;
mod golden;
mod hosts;
mod joining;
mod kernel;
mod landlock;
mod launch;
mod mutation;
mod policies;
mod random;
mod rules;
mod world;

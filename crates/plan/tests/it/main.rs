//! The planner: a project and a machine in, plan text out.

mod first;
mod going_back;
mod interrupted;
mod order;
mod properties;
mod refusals;
mod routes;
mod support;
mod unchanged;

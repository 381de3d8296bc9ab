//! Tests against a real PostgreSQL. Each makes databases of its own.
//!
//! The server is the one that `SHIPLAP_TEST_POSTGRES` names (a URL of a superuser), else one that
//! is started from Debian's programs in a folder of its own and ends with the tests
//! (`scripts/postgres-up` installs them). Without either, tests say so and pass. With
//! `SHIPLAP_TEST_DATA=all` everything is tried that takes long (`make test-data`).

mod lab;
mod refusing;
mod sampling;
mod schemas;
mod servers;
mod swapping;
mod trouble;

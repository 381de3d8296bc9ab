//! `schema`: the JSON Schema of `shiplap.yaml`, for editors.

use super::Exit;

pub fn schema() -> Exit {
    println!("{:#}", shiplap_config::schema());
    Exit::Done
}

//! Tells the code which Python it is built for.

fn main() {
    println!("cargo:rerun-if-changed=rust/build.rs");
    #[cfg(feature = "python")]
    pyo3_build_config::use_pyo3_cfgs();
}

//! Functions of the caller behind the fence: what holds for them, how their results come back, how they end.

mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::io::Read;
    use std::process;
    use std::thread;
    use std::time::Duration;

    use ringfence::{
        Action, CallFailure, Closure, ErrorKind, Filter, Init, Io, Portable, Sandbox, Stdio, Step, Verdict,
    };

    use super::support::{build, field, sandbox};

    type Called<T> = Result<T, CallFailure>;

    /// libtest has threads of its own, which do nothing meanwhile.
    fn closure(sandbox: &Sandbox) -> Closure {
        let mut closure = sandbox.closure();
        closure.allow_threads().deadline(Duration::from_secs(60));
        closure
    }

    fn call<T: Portable>(sandbox: &Sandbox, function: impl FnOnce(Io) -> T) -> Called<T> {
        closure(sandbox).call(function)
    }

    fn value<T>(called: Called<T>) -> T {
        called.unwrap_or_else(|failure| panic!("{failure:#}"))
    }

    #[test]
    fn a_value_comes_back_with_its_type() {
        let sandbox = build(sandbox());
        let borrowed = String::from("of the caller");
        assert_eq!(value(call(&sandbox, |_| borrowed.len())), 13);
        assert_eq!(value(call(&sandbox, |_| borrowed.clone())), borrowed);
        assert_eq!(value(call(&sandbox, |_| vec![7_u8; 1 << 20])), vec![7; 1 << 20]);
        value(call(&sandbox, |_| ()));
        assert!(value(call(&sandbox, |_| true)));
        assert_eq!(value(call(&sandbox, |_| -5_i64)), -5);
    }

    #[test]
    fn a_panic_comes_back_with_message_and_place() {
        let sandbox = build(sandbox());
        match call(&sandbox, |_| -> u32 { panic!("number {}", 7) }) {
            Err(CallFailure::Panicked(panic)) => {
                assert_eq!(panic.message, "number 7");
                assert!(panic.location.starts_with("tests/call.rs:"), "{panic:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

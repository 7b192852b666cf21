//! Another command in a living sandbox.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use super::support::{shell, system};

    #[test]
    fn first() {
        let sandbox = system().build().unwrap();
        let child = shell(&sandbox, "sleep 1000").spawn().unwrap();
        let outcome = child.command("sh").args(["-c", "id; ls -la /proc/1/ns /proc/self/ns; ps ax -o pid,ppid,args; cat /proc/self/mountinfo | wc -l; exit 7"]).output().unwrap_or_else(|e| panic!("{e:#}"));
        println!("{}{} {:?}", String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr), outcome.verdict());
        println!("{}", child.command("sh").explain().unwrap());
        let other = child.command("sleep").arg("1000").spawn().unwrap();
        println!("{}", other.enforcement());
        println!("{:#?}", child.processes().unwrap());
        println!("{:#?}", other.processes().unwrap());
        drop(child);
        println!("{:?}", other.wait().unwrap().verdict());
        panic!();
    }
}

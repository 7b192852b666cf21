//! Real programs start and compute under `Filter::worker` and `Filter::worker_dynamic`: with glibc and with musl, static and
//! dynamic, on descriptors that were passed to them.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::{Seek, Write};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use ringfence::{Action, Error, Filter, Mount, Outcome, Sandbox, Stdio, Verdict};

    use super::support::{Scratch, mode, skip};

    /// Reads words from 0 and their number's state from 3, sorts and adds them up in four threads, writes to 1 and back to
    /// 3, and sends the sorted bytes through a memfd. Each line of what it says is one thing that worked.
    const PROGRAM: &str = r#"
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <poll.h>
        #include <pthread.h>
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/mman.h>
        #include <sys/socket.h>
        #include <sys/stat.h>
        #include <sys/wait.h>
        #include <time.h>
        #include <unistd.h>

        #define CHECK(what) do { if (!(what)) { dprintf(1, "failed: %s: %s\n", #what, strerror(errno)); return 1; } } while (0)

        static long numbers[4000];
        static int count;
        static long sum;
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        static volatile sig_atomic_t signalled;

        static int order(const void *a, const void *b) { long x = *(const long *)a, y = *(const long *)b; return (x > y) - (x < y); }
        static void caught(int signal) { signalled = signal; }

        static void *part(void *argument) {
            long which = (long)argument, mine = 0;
            char *block = malloc(3 << 20);
            if (!block) return (void *)1;
            memset(block, which, 3 << 20);
            for (int i = which; i < count; i += 4) mine += numbers[i];
            free(block);
            pthread_mutex_lock(&lock);
            sum += mine;
            pthread_mutex_unlock(&lock);
            return NULL;
        }

        int main(void) {
            struct stat status;
            struct pollfd ready = { .fd = 0, .events = POLLIN };
            CHECK(fstat(0, &status) == 0);
            CHECK(poll(&ready, 1, 10000) == 1);
            long number;
            while (count < 4000 && scanf("%ld", &number) == 1) numbers[count++] = number;
            qsort(numbers, count, sizeof *numbers, order);

            pthread_t threads[4];
            for (long i = 0; i < 4; i++) CHECK((errno = pthread_create(&threads[i], NULL, part, (void *)i)) == 0);
            for (int i = 0; i < 4; i++) { void *bad; CHECK(pthread_join(threads[i], &bad) == 0 && !bad); }

            char state[32] = { 0 };
            CHECK(pread(3, state, sizeof state - 1, 0) > 0);
            int length = snprintf(state, sizeof state, "%d\n", atoi(state) + 1);
            CHECK(pwrite(3, state, length, 0) == length && lseek(3, 0, SEEK_SET) == 0);

            int memory = memfd_create("sorted", MFD_ALLOW_SEALING);
            CHECK(memory >= 0 && ftruncate(memory, sizeof numbers) == 0);
            long *shared = mmap(NULL, sizeof numbers, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
            CHECK(shared != MAP_FAILED);
            memcpy(shared, numbers, sizeof numbers);
            CHECK(munmap(shared, sizeof numbers) == 0 && fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == 0);

            struct sigaction action = { .sa_handler = caught };
            sigset_t set;
            struct timespec now, little = { .tv_nsec = 1000 };
            CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
            sigemptyset(&set);
            CHECK(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
            CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0 && nanosleep(&little, NULL) == 0);
            unsigned char random[16];
            CHECK(getentropy(random, sizeof random) == 0);

            int ends[2];
            CHECK(open("/written", O_WRONLY | O_CREAT, 0600) < 0);
            CHECK(socket(AF_INET, SOCK_STREAM, 0) < 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0);
            CHECK(fork() < 0);
            CHECK(execl("/program", "program", NULL) < 0);
            CHECK(kill(getpid(), SIGUSR1) < 0 && !signalled);
            printf("%d numbers from %ld to %ld, sum %ld, run %s", count, numbers[0], numbers[count - 1], sum, state);
            return 0;
        }
    "#;

    /// What loads a dynamic program, of either C library.
    const LIBRARIES: [&str; 6] =
        ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/ld-musl-x86_64.path"];

    /// `None` where this compiler is not there, or has no library for such programs.
    fn program(scratch: &Scratch, compiler: &str, flags: &[&str]) -> Option<PathBuf> {
        let (source, program) = (scratch.at("program.c"), scratch.at("program"));
        fs::write(&source, PROGRAM).expect("a source");
        let mut command = Command::new(compiler);
        command.args(["-O1", "-w", "-pthread", "-o"]).arg(&program).arg(&source).args(flags);
        let made = command.output().is_ok_and(|output| output.status.success());
        if made {
            mode(&program, 0o755);
        }
        made.then_some(program)
    }

    fn run(filter: Filter, program: &Path, state: &Path, libraries: &[&str]) -> Result<Outcome, Error> {
        let mut builder = Sandbox::builder().seccomp(filter).mount(Mount::bind(program, "/program"));
        for path in libraries {
            builder = builder.mount(Mount::bind(*path, *path).mirror());
        }
        let sandbox = builder.build().unwrap_or_else(|error| panic!("{error:#}"));
        let input: String = (1..=4000_u32).map(|number| format!("{}\n", number * 7919 % 4001)).collect();
        let mut words = File::from(memfd_create(c"input", MFdFlags::MFD_CLOEXEC).expect("memfd"));
        words.write_all(input.as_bytes()).expect("write");
        words.rewind().expect("rewind");
        let state = OpenOptions::new().read(true).write(true).open(state).expect("the state");
        let mut command = sandbox.command("/program");
        command.stdin(words).stdout(Stdio::piped()).stderr(Stdio::piped()).fd(3, state);
        command.output()
    }

    fn said(outcome: &Outcome) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!("{}\n{}{}", outcome.verdict(), text(&outcome.stdout), text(&outcome.stderr))
    }

    /// The program computes under the filter, run after run.
    fn works(name: &str, compiler: &str, flags: &[&str], filter: fn() -> Filter, libraries: &[&str]) {
        let scratch = Scratch::new();
        let Some(program) = program(&scratch, compiler, flags) else {
            skip!(name, "{compiler} {} makes no program here", flags.join(" "));
        };
        let state = scratch.file("state", "0\n");
        for count in 1..=2 {
            let outcome =
                run(filter(), &program, &state, libraries).unwrap_or_else(|error| panic!("{error:#}"));
            let sum: u32 = (1..=4000_u32).map(|number| number * 7919 % 4001).sum();
            let wanted = format!("4000 numbers from 1 to 4000, sum {sum}, run {count}\n");
            assert_eq!(outcome.verdict(), Verdict::Exited(0), "{}", said(&outcome));
            assert_eq!(String::from_utf8_lossy(&outcome.stdout), wanted, "{}", said(&outcome));
            assert_eq!(fs::read_to_string(&state).expect("the state"), format!("{count}\n"));
        }
    }

    #[test]
    fn a_static_program_with_glibc_computes_under_worker() {
        works("a_static_program_with_glibc_computes_under_worker", "gcc", &["-static"], Filter::worker, &[]);
    }

    #[test]
    fn a_static_program_with_musl_computes_under_worker() {
        works(
            "a_static_program_with_musl_computes_under_worker",
            "musl-gcc",
            &["-static"],
            Filter::worker,
            &[],
        );
    }

    #[test]
    fn a_dynamic_program_with_glibc_computes_under_worker_dynamic() {
        const NAME: &str = "a_dynamic_program_with_glibc_computes_under_worker_dynamic";
        works(NAME, "gcc", &[], Filter::worker_dynamic, &LIBRARIES);
    }

    #[test]
    fn a_dynamic_program_with_musl_computes_under_worker_dynamic() {
        const NAME: &str = "a_dynamic_program_with_musl_computes_under_worker_dynamic";
        works(NAME, "musl-gcc", &[], Filter::worker_dynamic, &LIBRARIES);
    }

    #[test]
    fn a_static_program_computes_under_what_a_dynamic_one_needs() {
        const NAME: &str = "a_static_program_computes_under_what_a_dynamic_one_needs";
        works(NAME, "gcc", &["-static-pie"], Filter::worker_dynamic, &[]);
    }

    /// A static program with glibc asks at its start where it lies (readlink), and does without the answer; musl asks nothing.
    #[test]
    fn the_start_of_glibc_needs_an_answer_to_what_is_refused() {
        const NAME: &str = "the_start_of_glibc_needs_an_answer_to_what_is_refused";
        for (compiler, state_then) in [("gcc", "0\n"), ("musl-gcc", "1\n")] {
            let scratch = Scratch::new();
            let Some(program) = program(&scratch, compiler, &["-static"]) else {
                skip!(NAME, "{compiler} -static makes no program here");
            };
            let state = scratch.file("state", "0\n");
            let filter = Filter::worker().otherwise(Action::KillProcess);
            let outcome = run(filter, &program, &state, &[]).unwrap_or_else(|error| panic!("{error:#}"));
            let Verdict::Refused { call } = outcome.verdict() else { panic!("{}", said(&outcome)) };
            let expected: &[&str] = if compiler == "gcc" { &["readlink"] } else { &["open", "openat"] };
            assert!(expected.contains(&call.name), "{call}");
            // With musl it has computed, and ends where it opens a file.
            assert_eq!(fs::read_to_string(&state).expect("the state"), state_then, "{compiler}");
        }
    }

    #[test]
    fn a_dynamic_program_finds_no_library_under_worker() {
        const NAME: &str = "a_dynamic_program_finds_no_library_under_worker";
        let scratch = Scratch::new();
        let Some(program) = program(&scratch, "gcc", &[]) else { skip!(NAME, "gcc makes no program here") };
        let state = scratch.file("state", "0\n");
        let outcome =
            run(Filter::worker(), &program, &state, &LIBRARIES).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(outcome.verdict(), Verdict::Exited(127), "{}", said(&outcome));
        assert!(said(&outcome).contains("libc.so.6"), "{}", said(&outcome));
    }
}

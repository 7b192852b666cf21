# Looks into every process that it sees, until its standard input ends. What it gets of one that still runs the set-up's
# image (and not the program) is printed, and how many it could not look into at all.
import ctypes, os, select, sys

libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(64)
got, refused = set(), set()


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def tried(what, call):
    try:
        if call():
            got.add(what)
    except OSError:
        pass


def host(link):
    return any(part in link for part in ("socket:", "pidfd", "memfd:", "net:[", "mnt:[", "user:[", "signalfd"))


def image(pid):
    try:
        return "memfd:" in os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False


def memory(pid, address):
    local = Vector(ctypes.addressof(buffer), 64)
    remote = Vector(address, 64)
    return libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) > 0


def maps(pid):
    with open(f"/proc/{pid}/maps") as file:
        return "memfd:" in file.read()


def mem(pid):
    with open(f"/proc/{pid}/mem", "rb", 0) as file:
        file.seek(0x20000000)
        return len(file.read(8)) == 8


def environ(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:
        return image(pid) and len(file.read()) > 0


def elsewhere(pid, name):
    there, here = os.stat(f"/proc/{pid}/{name}"), os.stat("/")
    return name == "root" and (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)


def seize(pid):
    # What can be looked at is the program already, and holding it up would only hold up its caller.
    if not image(pid) and os.access(f"/proc/{pid}/maps", os.R_OK):
        return False
    if libc.ptrace(0x4206, pid, 0, 0) != 0:
        return False
    mine = image(pid)
    libc.ptrace(0x4207, pid, 0, 0)
    os.waitpid(pid, 0x40000000)
    libc.ptrace(17, pid, 0, 0)
    return mine


def steal(pid, number):
    pidfd = libc.syscall(434, pid, 0)
    if pidfd < 0:
        return False
    stolen = libc.syscall(438, pidfd, number, 0)
    os.close(pidfd)
    if stolen < 0:
        return False
    link = os.readlink(f"/proc/self/fd/{stolen}")
    os.close(stolen)
    return host(link)


def look(pid):
    try:
        os.readlink(f"/proc/{pid}/exe")
    except PermissionError:
        refused.add(pid)
    except OSError:
        return
    tried("exe", lambda: image(pid))
    tried("memory of the brief", lambda: memory(pid, 0x20000000))
    tried("memory of the image", lambda: memory(pid, 0x10000000))
    for name, call in (("maps", maps), ("mem", mem), ("environ", environ), ("ptrace", seize)):
        tried(name, lambda: call(pid))
    for name in ("root", "cwd"):
        tried(name, lambda: elsewhere(pid, name))
    for number in range(3, 12):
        tried("fd", lambda: host(os.readlink(f"/proc/{pid}/fd/{number}")))
        tried("pidfd_getfd", lambda: steal(pid, number))


before = {int(name) for name in os.listdir("/proc") if name.isdigit()} if len(sys.argv) < 2 else {os.getpid()}
print("READY", flush=True)
while True:
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in before:
            look(int(name))
    if len(sys.argv) > 1 or select.select([0], [], [], 0)[0]:
        break
print("REFUSED", len(refused), "GOT", sorted(got))

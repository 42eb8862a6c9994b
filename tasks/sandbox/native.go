package sandbox

import (
	"os"
	"os/exec"
)

// This file has what the runtime of native commands shares with the sandbox.

// StartProcess starts a command on the thread of the launcher, so that a
// parent-death signal means the end of this process and nothing else.
func (l *Launcher) StartProcess(cmd *exec.Cmd) error { return l.start(cmd) }

// StopTree stops a process, its group and all that descends from it, as
// Child.Hold does; false where that cannot be done, or it has ended.
func StopTree(p *os.Process) bool { return stopProcesses(p) }

// ContinueTree is the reverse of StopTree.
func ContinueTree(p *os.Process) { continueProcesses(p) }

// SpilledFile describes a file that stayed with whoever ran the task, by a
// number that is not 0.
func SpilledFile(name string, size int64, number uint64) File {
	return File{Name: name, Size: size, number: number}
}

// Number is the one of SpilledFile.
func (f File) Number() uint64 { return f.number }

// PlaceInCgroup puts a process into a cgroup of its own where one was delegated:
// bytes of memory and processes for it and what it starts. leave removes the cgroup
// when they have ended.
func (l *Launcher) PlaceInCgroup(pid int, memory int64, processes int) (leave func(), err error) {
	if l.cgroup == nil {
		return func() {}, nil
	}
	dir, err := l.cgroup.place(pid, memory, processes)
	if err != nil {
		return nil, err
	}
	return func() { endCgroup(dir) }, nil
}

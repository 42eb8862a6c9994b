package sandbox

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// stopProcesses stops a child's group and whatever else it has started. A parent
// is stopped before its children are looked for, so that none is missed.
func stopProcesses(p *os.Process) bool {
	if syscall.Kill(-p.Pid, syscall.SIGSTOP) != nil {
		return false
	}
	stopped := map[int]bool{}
	for {
		found := false
		for _, pid := range below(p.Pid) {
			if !stopped[pid] {
				stopped[pid], found = true, true
				syscall.Kill(pid, syscall.SIGSTOP) // it may have ended
			}
		}
		if !found {
			return true
		}
	}
}

// continueProcesses is the reverse: children first.
func continueProcesses(p *os.Process) {
	all := below(p.Pid)
	for i := len(all) - 1; i >= 0; i-- {
		syscall.Kill(all[i], syscall.SIGCONT)
	}
	syscall.Kill(-p.Pid, syscall.SIGCONT)
}

// below returns the processes that descend from root, parents first.
func below(root int) []int {
	children := map[int][]int{}
	lines, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range lines {
		if pid, parent, ok := parentIn(path); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	all := []int{root}
	for next := 0; next < len(all); next++ {
		all = append(all, children[all[next]]...)
	}
	return all[1:]
}

// parentIn reads the numbers of a process and of its parent.
func parentIn(path string) (pid, parent int, ok bool) {
	line, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, false
	}
	fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:])) // state, parent, …
	if len(fields) < 2 {
		return 0, 0, false
	}
	pid, pidErr := strconv.Atoi(filepath.Base(filepath.Dir(path)))
	parent, parentErr := strconv.Atoi(fields[1])
	return pid, parent, pidErr == nil && parentErr == nil
}

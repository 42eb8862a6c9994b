package rules

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// process is what one line of /proc/PID/stat says.
type process struct {
	pid, parent int
	name        string // at most 15 bytes
	own         uint64 // ticks of CPU that it used itself
	children    uint64 // ticks of its children that ended and that it waited for
	nice        int
	policy      int
	started     uint64 // ticks since boot: tells a number that was given again
	pages       int64  // of memory that it has
}

// Scheduling policies that give way to all other processes.
const (
	policyIdle = 5
	// politeNice and above do not count as load.
	politeNice = 10
)

// polite reports whether the process gives way to all others.
func (p process) polite() bool {
	return p.nice >= politeNice || p.policy == policyIdle
}

// used is all CPU that was ever used by the process and what it waited for.
func (p process) used() uint64 { return p.own + p.children }

var errStat = errors.New("not a line of /proc/PID/stat")

// Places of the fields behind the name.
const (
	statParent  = 1
	statUser    = 11
	statSystem  = 12
	statKids    = 13
	statKidsSys = 14
	statNice    = 16
	statStart   = 19
	statPages   = 21
	statPolicy  = 38
)

// parseStat reads /proc/PID/stat. The name may hold anything, brackets and
// blanks too, so it ends at the last bracket.
func parseStat(line []byte) (p process, err error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return p, errStat
	}
	if p.pid, err = strconv.Atoi(strings.TrimSpace(string(line[:open]))); err != nil {
		return p, errStat
	}
	p.name = string(line[open+1 : end])
	fields := strings.Fields(string(line[end+1:]))
	if len(fields) <= statPolicy {
		return p, errStat
	}
	number := func(i int) int64 {
		n, numberErr := strconv.ParseInt(fields[i], 10, 64)
		if numberErr != nil {
			err = errStat
		}
		return n
	}
	ticks := func(i int) uint64 { return uint64(max(0, number(i))) }
	p.parent = int(number(statParent))
	p.own = ticks(statUser) + ticks(statSystem)
	p.children = ticks(statKids) + ticks(statKidsSys)
	p.nice, p.policy = int(number(statNice)), int(number(statPolicy))
	p.started, p.pages = ticks(statStart), number(statPages)
	return p, err
}

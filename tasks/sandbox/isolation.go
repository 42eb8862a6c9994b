package sandbox

import (
	"fmt"
	"strings"
)

// isolation says how much of its own a child gets, the more the higher.
type isolation int

const (
	isolationNone     isolation = iota
	isolationNoMounts           // namespaces, but with the machine's mounts and processes
	isolationFull
)

// isolationFound is how much children get on this system, and why not more, by
// layer. It is found by trying, from the most to the least.
type isolationFound struct {
	most isolation
	why  map[string]string
}

// refused says why the next lower level is tried.
func (f *isolationFound) refused(reason string) {
	if f.why == nil {
		f.why = make(map[string]string)
	}
	f.most--
	if f.most == isolationNone {
		f.why[LayerNamespaces] = reason
	}
	if f.why[LayerMounts] == "" {
		f.why[LayerMounts] = reason
	}
}

// isolation returns how children are isolated, and whether that was tried.
func (l *Launcher) isolation() (found isolationFound, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isolated == nil {
		return isolationFound{most: isolationFull}, false
	}
	return *l.isolated, true
}

func (l *Launcher) isolationIs(found isolationFound) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isolated == nil {
		l.isolated = &found
	}
}

// refusal says in words why a process of c could not be started with namespaces or
// said no hello; it has ended.
func (c *Child) refusal(err error) string {
	if !c.started() {
		return isolationRefused(err)
	}
	return c.lastWords(err)
}

// lastWords is what a process that has ended said of it, else how it ended.
func (c *Child) lastWords(err error) string {
	if said := c.complaint(); said != "" {
		return strings.TrimPrefix(said, complaintStage)
	}
	return fmt.Sprintf("its process ended before it was ready: %s (%v)", c.cmd.ProcessState, err)
}

package rules

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// ticksPerSecond is the unit of CPU time in /proc, on every Linux.
	ticksPerSecond = 100
	// loadMemory is how fast the measured load follows the true one.
	loadMemory = 500 * time.Millisecond
	// staleCensus is the age above which two looks say nothing of now.
	staleCensus = 5 * time.Second
	// maxProcName is what the kernel keeps of a program's name.
	maxProcName = 15
)

// processes watches the processes of a machine through /proc.
type processes struct {
	root string // of /proc
	self int    // this process
	page int64  // bytes

	last    census
	lastAt  time.Time
	busy    uint64 // ticks of the whole machine at idleAt
	busyAt  time.Time
	load    float64 // cores, smoothed
	known   bool
	sameExe map[int]exe
}

// exe remembers whether a process is another copy of this program.
type exe struct {
	started uint64
	name    string
	same    bool
}

func newProcesses(root string, self int) *processes {
	return &processes{root: root, self: self, page: int64(os.Getpagesize()), sameExe: map[int]exe{}}
}

// look is what one look at the processes found.
type look struct {
	load      Load
	guests    int64 // bytes of memory of this process's descendants
	exclusive []string
}

// look reads /proc. It lists all processes only when it has to: when the machine
// is busier than quiet cores, when everything is asked for, or when programs are
// looked for.
func (p *processes) look(now time.Time, quiet float64, all bool, programs []string) (look, error) {
	bound, bounded, err := p.machine(now)
	if err != nil {
		return look{}, err
	}
	if !all && len(programs) == 0 && bound <= quiet {
		p.last, p.load, p.known = nil, bound, bounded
		return look{load: Load{Known: bounded, Cores: bound}}, nil
	}
	current, err := p.list()
	if err != nil {
		return look{}, err
	}
	out := look{exclusive: current.running(programs, p.self)}
	below := current.descendants(p.self)
	for pid := range below {
		out.guests += current[pid].pages * p.page
	}
	if !bounded {
		bound = float64(runtime.NumCPU())
	}
	p.measure(current, now, bound, func(one process) bool { return below[one.pid] || p.isOwn(one) })
	out.load = Load{Known: p.known, Cores: p.load}
	return out, nil
}

// measure moves the load by what was used since the last look.
func (p *processes) measure(current census, now time.Time, bound float64, mine func(process) bool) {
	since := now.Sub(p.lastAt)
	if p.last != nil && since > 0 && since < staleCensus {
		used := float64(othersUsed(p.last, current, mine)) / ticksPerSecond / since.Seconds()
		// One look alone is too coarse: ticks are 10 ms.
		weight := 1 - math.Exp(-since.Seconds()/loadMemory.Seconds())
		p.load += (min(used, bound+1) - p.load) * weight
		p.known = true
	} else if !p.known {
		p.load = 0
	}
	p.last, p.lastAt = current, now
}

// machine returns how many cores were busy since the last call: a bound of what
// others can have used. The first call knows none.
func (p *processes) machine(now time.Time) (bound float64, known bool, err error) {
	text, err := os.ReadFile(filepath.Join(p.root, "stat"))
	if err != nil {
		return 0, false, err
	}
	busy, err := parseBusy(text)
	if err != nil {
		return 0, false, err
	}
	since, used := now.Sub(p.busyAt), less(busy, p.busy)
	first := p.busyAt.IsZero()
	p.busy, p.busyAt = busy, now
	if first || since <= 0 {
		return 0, false, nil
	}
	return float64(used) / ticksPerSecond / since.Seconds(), true, nil
}

// parseBusy reads the ticks that all cores were busy from /proc/stat.
func parseBusy(text []byte) (uint64, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	fields := strings.Fields(string(line))
	// cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("no line cpu in /proc/stat")
	}
	var busy uint64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseUint(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		busy += n
	}
	return busy, nil
}

// list reads every process.
func (p *processes) list() (census, error) {
	dir, err := os.Open(p.root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	out := make(census, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err != nil || pid <= 0 {
			continue
		}
		line, err := os.ReadFile(filepath.Join(p.root, name, "stat"))
		if err != nil {
			continue // it has ended
		}
		if one, err := parseStat(line); err == nil {
			out[one.pid] = one
		}
	}
	for pid, e := range p.sameExe {
		if one, lives := out[pid]; !lives || one.started != e.started {
			delete(p.sameExe, pid)
		}
	}
	return out, nil
}

// isOwn reports whether a process is this program: this process or another copy
// of it.
func (p *processes) isOwn(one process) bool {
	if one.pid == p.self {
		return true
	}
	if known, ok := p.sameExe[one.pid]; ok && known.started == one.started && known.name == one.name {
		return known.same
	}
	same := p.isCopy(one.pid)
	p.sameExe[one.pid] = exe{one.started, one.name, same}
	return same
}

// isCopy reports whether a process runs the file that this one runs.
func (p *processes) isCopy(pid int) bool {
	other, err := os.Stat(filepath.Join(p.root, strconv.Itoa(pid), "exe"))
	if err != nil {
		return false
	}
	own, err := os.Stat(filepath.Join(p.root, strconv.Itoa(p.self), "exe"))
	return err == nil && os.SameFile(own, other)
}

// running returns which of the programs run.
func (c census) running(programs []string, self int) []string {
	var out []string
	for _, program := range programs {
		name := program[:min(len(program), maxProcName)]
		for _, one := range c {
			if one.name == name && one.pid != self {
				out = append(out, program)
				break
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

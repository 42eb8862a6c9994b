package rules

import (
	"cmp"
	"os"
	"time"
)

// SensorsConfig says where to look.
type SensorsConfig struct {
	Source    string // of the user's input
	Sys       string // root of sysfs; empty: /sys
	Proc      string // root of procfs; empty: /proc
	Dev       string // where terminals are; empty: /dev
	Dir       string // on whose file system tasks have their files
	Rules     Rules
	DiskFree  func(dir string) (int64, error)
	ProcessID int // whose descendants are guests; 0: this process
}

// Sensors find the facts of this machine. They are used by one goroutine.
type Sensors struct {
	cfg       SensorsConfig
	inputs    inputs
	close     func()
	processes *processes
}

// OpenSensors returns the sensors of this machine. The caller closes them. What
// cannot be found out is said in the facts, not here.
func OpenSensors(cfg SensorsConfig) *Sensors {
	cfg.Source = cmp.Or(cfg.Source, SourceAuto)
	cfg.Sys, cfg.Proc, cfg.Dev = cmp.Or(cfg.Sys, "/sys"), cmp.Or(cfg.Proc, "/proc"), cmp.Or(cfg.Dev, "/dev")
	cfg.ProcessID = cmp.Or(cfg.ProcessID, os.Getpid())
	s := &Sensors{cfg: cfg, processes: newProcesses(cfg.Proc, cfg.ProcessID)}
	s.inputs.ask, s.close = openSource(cfg.Source, cfg)
	return s
}

// Close ends the connections of the sensors.
func (s *Sensors) Close() { s.close() }

// Keep says by which rules the facts are judged from now on.
func (s *Sensors) Keep(r Rules) { s.cfg.Rules = r }

// Read looks at the machine; guests says whether any guest may be there.
func (s *Sensors) Read(now time.Time, guests bool) Facts {
	f := Facts{Input: s.inputs.look(now), Power: s.power()}
	if free, err := s.cfg.DiskFree(s.cfg.Dir); err == nil {
		f.Disk = Disk{Known: true, Free: free}
	}
	s.machine(&f, now, guests)
	return f
}

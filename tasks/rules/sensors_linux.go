package rules

import (
	"os"
	"path/filepath"
	"time"
)

func (s *Sensors) power() Power { return readPower(s.cfg.Sys) }

// machine adds what procfs says.
func (s *Sensors) machine(f *Facts, now time.Time, guests bool) {
	if text, err := os.ReadFile(filepath.Join(s.cfg.Proc, "meminfo")); err == nil {
		f.Memory, _ = parseMemory(text) // not known then
	}
	found, err := s.processes.look(now, quietLoad(s.cfg.Rules), guests, s.cfg.Rules.Exclusive)
	if err != nil {
		f.Blind = err.Error()
		return
	}
	f.Load, f.Memory.Guests, f.Exclusive = found.load, found.guests, found.exclusive
}

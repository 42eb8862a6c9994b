//go:build !linux

package rules

import (
	"runtime"
	"time"
)

func (s *Sensors) power() Power {
	return Power{Detail: "unknown on " + runtime.GOOS}
}

// machine: other programs and the memory are not looked at here.
func (s *Sensors) machine(f *Facts, _ time.Time, _ bool) {
	f.Blind = "not known on " + runtime.GOOS
}

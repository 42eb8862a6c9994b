package rules

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// parseMemory reads /proc/meminfo.
func parseMemory(text []byte) (Memory, error) {
	m := Memory{Total: -1, Available: -1}
	for line := range bytes.Lines(text) {
		name, rest, _ := strings.Cut(string(line), ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		kib, err := strconv.ParseInt(fields[0], 10, 53)
		if err != nil || kib < 0 {
			continue
		}
		switch name {
		case "MemTotal":
			m.Total = kib << 10
		case "MemAvailable":
			m.Available = kib << 10
		}
	}
	if m.Total <= 0 || m.Available < 0 {
		return Memory{}, errors.New("/proc/meminfo does not say how much memory there is")
	}
	m.Known = true
	return m, nil
}

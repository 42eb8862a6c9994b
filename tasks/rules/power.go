package rules

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxAttribute bounds a file of sysfs.
const maxAttribute = 4 << 10

// readPower looks at the tree class/power_supply below root. A machine is on its
// battery when a battery of the system discharges and no other supply is online:
// a battery of a mouse or of a UPS's far end says nothing of it.
func readPower(root string) Power {
	dir := filepath.Join(root, "class", "power_supply")
	supplies, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Power{Known: true, Detail: "no power supply that tells of itself"}
		}
		return Power{Detail: "unknown: " + err.Error()}
	}
	var batteries, discharging, online []string
	for _, s := range supplies {
		attribute := func(name string) string { return readAttribute(filepath.Join(dir, s.Name(), name)) }
		switch kind := attribute("type"); {
		case kind == "Battery" || kind == "UPS":
			if attribute("scope") == "Device" || attribute("present") == "0" {
				continue
			}
			batteries = append(batteries, s.Name())
			if attribute("status") == "Discharging" {
				discharging = append(discharging, s.Name()+" discharges"+at(attribute("capacity")))
			}
		case attribute("online") == "1" || attribute("online") == "2":
			online = append(online, s.Name())
		}
	}
	switch {
	case len(online) > 0:
		return Power{Known: true, Detail: strings.Join(online, ", ") + " is online"}
	case len(discharging) > 0:
		return Power{Known: true, Battery: true, Detail: strings.Join(discharging, ", ")}
	case len(batteries) > 0:
		return Power{Known: true, Detail: strings.Join(batteries, ", ") + " does not discharge"}
	}
	return Power{Known: true, Detail: "no battery"}
}

func at(capacity string) string {
	if capacity == "" {
		return ""
	}
	return ", " + capacity + "% left"
}

// readAttribute returns the text of a small file; empty when it cannot be read.
func readAttribute(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	buffer := make([]byte, maxAttribute)
	n, _ := f.Read(buffer)
	return strings.TrimSpace(strings.ToValidUTF8(string(buffer[:n]), "?"))
}

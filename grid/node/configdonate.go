package node

import (
	"runtime"
	"slices"
	"time"

	"gotong/tasks/rules"
)

// DonateConfig says when this machine runs tasks, and whose.
type DonateConfig struct {
	Idle       time.Duration `mapstructure:"idle"`        // without input of the user before tasks run; 0: not needed
	IdleSource string        `mapstructure:"idle_source"` // auto, logind, tty, x11 or the path of a file
	Load       rules.Share   `mapstructure:"load"`        // of the cores that other programs may keep busy
	CPU        rules.Share   `mapstructure:"cpu"`         // of the cores that tasks may have
	Battery    bool          `mapstructure:"battery"`     // run on battery too
	Hours      []string      `mapstructure:"hours"`       // [DAYS] [HH:MM-HH:MM]; none: always
	Exclusive  []string      `mapstructure:"exclusive"`   // programs besides which nothing runs

	MemoryInUse rules.Share `mapstructure:"memory_in_use"` // of the memory that tasks may have while the user is there
	MemoryIdle  rules.Share `mapstructure:"memory_idle"`   // else
	DiskFree    Size        `mapstructure:"disk_free"`     // that stays free

	Hold time.Duration `mapstructure:"hold"` // how long stopped tasks are kept

	Accept []string `mapstructure:"accept"` // members, invited-by-me, or owners
	Allow  []string `mapstructure:"allow"`  // owners besides
	Deny   []string `mapstructure:"deny"`   // owners never
	Native []string `mapstructure:"native"` // none, members, or owners whose native commands run

	SysfsRoot string `mapstructure:"sysfs_root"` // where power supplies and input devices are looked for
}

// Words of donate.accept; anything else is an owner.
const (
	acceptMembers = "members"
	acceptInvited = "invited-by-me"
	nativeNone    = "none" // of donate.native
)

func defaultDonate() DonateConfig {
	return DonateConfig{
		Idle: 3 * time.Minute, IdleSource: rules.SourceAuto, Load: 60, CPU: 100,
		MemoryInUse: 25, MemoryIdle: 75, DiskFree: 1e9, Hold: 30 * time.Second,
		Accept: []string{acceptMembers}, Native: []string{nativeNone}, SysfsRoot: "/sys",
	}
}

// maxRuleNames bounds each list of the donor's rules.
const maxRuleNames = 1000

func (c DonateConfig) validate(fault func(key, format string, args ...any)) {
	for key, d := range map[string]time.Duration{"donate.idle": c.Idle, "donate.hold": c.Hold} {
		if d < 0 {
			fault(key, "%s is negative", d)
		}
	}
	if err := rules.ValidSource(c.IdleSource); err != nil {
		fault("donate.idle_source", "%w", err)
	}
	for _, text := range c.Hours {
		if _, err := rules.ParseWindow(text); err != nil {
			fault("donate.hours", "%w", err)
		}
	}
	if c.SysfsRoot == "" {
		fault("donate.sysfs_root", "it is empty; /sys is what it usually is")
	}
	for key, list := range map[string][]string{
		"donate.exclusive": c.Exclusive, "donate.accept": c.Accept, "donate.allow": c.Allow, "donate.deny": c.Deny, "donate.native": c.Native,
	} {
		if len(list) > maxRuleNames {
			fault(key, "%d entries, at most %d", len(list), maxRuleNames)
		}
		for _, name := range list {
			if name == "" {
				fault(key, "an entry is empty")
			}
			if key == "donate.native" && name == nativeNone && len(list) > 1 {
				fault(key, "%s and others exclude each other", nativeNone)
			}
		}
	}
}

// runsNative reports whether anybody may have commands of this machine run, its own
// owner included.
func (c DonateConfig) runsNative() bool {
	return len(c.Native) > 0 && !slices.Contains(c.Native, nativeNone)
}

// donateRules returns the rules that rules.Decide goes by.
func (c Config) donateRules() rules.Rules {
	d := c.Donate
	return rules.Rules{
		Slots: c.Slots, Cores: runtime.NumCPU(), CPU: d.CPU, Load: d.Load, Idle: d.Idle, Battery: d.Battery, Hours: d.Hours,
		Exclusive: d.Exclusive, MemoryInUse: d.MemoryInUse, MemoryIdle: d.MemoryIdle, DiskFree: int64(d.DiskFree),
	}
}

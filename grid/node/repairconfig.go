package node

import (
	"time"

	"gotong/storage"
	"gotong/storage/repair"
)

// RepairConfig says when lost shards are rebuilt.
type RepairConfig struct {
	Grace    time.Duration `mapstructure:"grace"`    // after which the shards of a holder that is away count as lost
	Interval time.Duration `mapstructure:"interval"` // between two rounds
	Rate     Size          `mapstructure:"rate"`     // bytes each second moved for repair; 0: no limit
}

// AuditConfig says how often other holders have to prove what they keep.
type AuditConfig struct {
	Interval time.Duration `mapstructure:"interval"` // mean time between two audits of one holder
	Groups   int           `mapstructure:"groups"`   // of 16 KiB in one audit
}

// ScrubConfig says how often this peer reads again what it keeps for others.
type ScrubConfig struct {
	Every time.Duration `mapstructure:"every"` // within which all was read
}

// repairTiming is what package repair takes of the configuration.
func (c Config) repairTiming() repair.Timing {
	return repair.Timing{
		Grace: c.Repair.Grace, Interval: c.Repair.Interval, Rate: int64(c.Repair.Rate), Audits: c.Audit.Interval, Groups: c.Audit.Groups,
		Scrub: c.Scrub.Every, Retention: c.Retention.Removed,
	}
}

func (c Config) validateRepair(fault func(key, format string, args ...any)) {
	for _, d := range []struct {
		key   string
		value time.Duration
	}{
		{"repair.grace", c.Repair.Grace}, {"repair.interval", c.Repair.Interval},
		{"audit.interval", c.Audit.Interval}, {"scrub.every", c.Scrub.Every},
	} {
		if d.value <= 0 {
			fault(d.key, "%s is not positive", d.value)
		}
	}
	if c.Retention.Removed < 0 {
		fault("retention.removed", "%s is negative", c.Retention.Removed)
	}
	if c.Audit.Groups < 1 || c.Audit.Groups > storage.MaxProofGroups {
		fault("audit.groups", "%d is not between 1 and %d", c.Audit.Groups, storage.MaxProofGroups)
	}
}

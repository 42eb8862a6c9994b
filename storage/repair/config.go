package repair

import (
	"errors"
	"log/slog"
	"time"

	"gotong/grid"
)

// Defaults of Config.
const (
	DefaultGrace           = 24 * time.Hour
	DefaultInterval        = 15 * time.Minute
	DefaultAuditInterval   = 6 * time.Hour
	DefaultAuditGroups     = 4
	DefaultScrubEvery      = 30 * 24 * time.Hour
	DefaultRetentionLeft   = 30 * 24 * time.Hour
	defaultParallel        = 2
	defaultTransferTimeout = 2 * time.Minute
)

// Config is what a Repairer needs. Zero numbers and durations mean their
// defaults.
type Config struct {
	Self     grid.PeerID
	Store    Store
	Rows     Rows // nil: this peer has no vault
	Segments Segments
	Grid     Grid
	Path     string // of the file in which it remembers; empty: nowhere

	Grace     time.Duration // after which the shards of a holder that is away count as lost
	Interval  time.Duration // between two rounds
	Rate      int64         // bytes each second moved for repair; 0: no limit
	Parallel  int           // rebuilds at once
	Audits    time.Duration // mean time between two audits of one holder
	Groups    int           // of 16 KiB in one audit
	Scrub     time.Duration // within which all own shards are read again
	Retention time.Duration // running time after which a removed owner's shards are freed

	Logger *slog.Logger
}

// Validate returns all faults of c together.
func (c Config) Validate() error {
	var faults []error
	if c.Store == nil || c.Segments == nil || c.Grid == nil {
		faults = append(faults, errors.New("repair: no store, no segments or no grid"))
	}
	if c.Self.IsZero() {
		faults = append(faults, errors.New("repair: no peer"))
	}
	return errors.Join(faults...)
}

func (c Config) filled() Config {
	orDefault(&c.Grace, DefaultGrace)
	orDefault(&c.Interval, DefaultInterval)
	orDefault(&c.Parallel, defaultParallel)
	orDefault(&c.Audits, DefaultAuditInterval)
	orDefault(&c.Groups, DefaultAuditGroups)
	orDefault(&c.Scrub, DefaultScrubEvery)
	orDefault(&c.Retention, DefaultRetentionLeft)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T int | time.Duration](v *T, fallback T) {
	if *v <= 0 {
		*v = fallback
	}
}

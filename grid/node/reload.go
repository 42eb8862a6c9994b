package node

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	controlv1 "gotong/proto/control/v1"
)

// restartKeys are the keys, or the beginnings of keys, whose change takes effect
// when the peer starts again. All others apply at once when the configuration is
// read again. configs/gotong.yaml says so too.
var restartKeys = []string{
	"name", "site", "listen", "slots", "discovery", "gossip", "store.keep_free", "backup.spool", "tasks",
	"donate.idle_source", "donate.native", "donate.sysfs_root", "retention.deletions", "log.format",
}

// RestartKeys returns the keys, or the beginnings of keys, that a running peer
// does not take over.
func RestartKeys() []string { return slices.Clone(restartKeys) }

// liveConfig is the configuration that a peer goes by now.
type liveConfig struct {
	config atomic.Pointer[Config]
	reload sync.Mutex // one at a time

	mu   sync.Mutex
	next chan struct{} // closed with the next change
}

func newLiveConfig(c Config) *liveConfig {
	l := &liveConfig{next: make(chan struct{})}
	l.config.Store(&c)
	return l
}

// changed is closed with the next change.
func (l *liveConfig) changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// set replaces the configuration and tells those who wait for that.
func (l *liveConfig) set(c *Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.config.Store(c)
	close(l.next)
	l.next = make(chan struct{})
}

// cfg is the configuration that holds now. It is looked at for each decision, and
// not to be changed.
func (p *Peer) cfg() *Config { return p.live.config.Load() }

// Reloaded says what reading the configuration again changed.
type Reloaded struct {
	Applied []string // keys that hold now, sorted
	Restart []string // keys that changed and hold after a restart, sorted
}

// Reload reads the configuration again and goes by it, as far as that can be done
// while the peer runs. A configuration that is not valid changes nothing.
func (p *Peer) Reload() (Reloaded, error) {
	p.live.reload.Lock()
	defer p.live.reload.Unlock()
	if p.options.Reload == nil {
		return Reloaded{}, &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "this peer was not started with a configuration that can be read again",
			Meaning: "nothing changed", Next: "restart it"}
	}
	next, err := p.options.Reload()
	if err != nil {
		return Reloaded{}, &Failure{Kind: controlv1.Kind_KIND_USAGE, What: "the configuration is not valid", Err: err,
			Meaning: "nothing changed: the peer goes on with the settings that it has", Next: "correct it, then gotong config reload"}
	}
	var done Reloaded
	old := p.cfg()
	for key, fields := range differences(reflect.ValueOf(old).Elem(), reflect.ValueOf(&next).Elem()) {
		if needsRestart(key) {
			fields.now.Set(fields.old)
			done.Restart = append(done.Restart, key)
		} else {
			done.Applied = append(done.Applied, key)
		}
	}
	slices.Sort(done.Applied)
	slices.Sort(done.Restart)
	p.live.set(&next)
	p.apply(&next)
	if len(done.Applied)+len(done.Restart) > 0 {
		p.logger.Info("configuration read again", "applied", done.Applied, "after_restart", done.Restart)
	}
	return done, nil
}

// apply gives the parts that keep settings of their own what holds now.
func (p *Peer) apply(c *Config) {
	if err := p.pledge(); err != nil {
		p.logger.Warn("others are not told yet what this peer gives now", "err", err)
	}
	p.repair.SetTiming(c.repairTiming())
	p.schedule.keep(c.Backup.Sets)
	p.work.donor.keep(c.donateRules(), c.Donate.Hold)
}

func needsRestart(key string) bool {
	return slices.ContainsFunc(restartKeys, func(r string) bool { return key == r || strings.HasPrefix(key, r+".") })
}

// change is a field in two configurations.
type change struct{ old, now reflect.Value }

// differences returns the fields of two configurations that differ, by key; sets
// are one field.
func differences(old, now reflect.Value) map[string]change {
	out := map[string]change{}
	for i := range old.NumField() {
		key := old.Type().Field(i).Tag.Get("mapstructure")
		a, b := old.Field(i), now.Field(i)
		switch {
		case a.Kind() == reflect.Struct:
			for below, c := range differences(a, b) {
				out[key+"."+below] = c
			}
		case (a.Kind() == reflect.Slice || a.Kind() == reflect.Map) && a.Len()+b.Len() == 0:
		case !reflect.DeepEqual(a.Interface(), b.Interface()):
			out[key] = change{a, b}
		}
	}
	return out
}

// ConfigReload reads the configuration again.
func (s *service) ConfigReload(context.Context, *controlv1.ConfigReloadRequest) (*controlv1.ConfigReloadResponse, error) {
	done, err := s.peer.Reload()
	if err != nil {
		return nil, err
	}
	return &controlv1.ConfigReloadResponse{Applied: done.Applied, Restart: done.Restart}, nil
}

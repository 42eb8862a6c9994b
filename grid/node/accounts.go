package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/disk"
	controlv1 "gotong/proto/control/v1"
)

const (
	accountsVersion = 1
	// maxAccounts bounds the owners that are remembered; the one whose last work
	// is longest ago goes first.
	maxAccounts      = 1000
	maxAccountsBytes = 1 << 20
	accountDays      = 7
	// accountEvery is how often accounts are written: what a crash may cost.
	accountEvery = time.Minute
	// balanceHalf is the time in which what was given and got counts half for
	// turns.
	balanceHalf = 7 * 24 * time.Hour
	// balanceGrace in core-seconds is what everybody is taken to have given and
	// got, so that little work weighs little.
	balanceGrace = 3600
	// maxWeight is how many turns the best friend has for one of a stranger's, and
	// a stranger for one of who only takes.
	maxWeight = 4
	// maxCoreSeconds bounds every sum.
	maxCoreSeconds = 1e15
)

// account is what this peer knows of the work for and by one owner, in
// core-seconds. It is this peer's own view; nobody else is asked or believed.
type account struct {
	For    float64 `json:"for"`  // computed here for the owner
	From   float64 `json:"from"` // computed by its peers for this owner
	Tasks  uint64  `json:"tasks"`
	Recent struct {
		For  float64   `json:"for"`
		From float64   `json:"from"`
		At   time.Time `json:"at"`
	} `json:"recent"` // decayed up to At
	Days []accountDay `json:"days"` // the last accountDays with work, oldest first
}

type accountDay struct {
	Day  string  `json:"day"` // local date
	For  float64 `json:"for"`
	From float64 `json:"from"`
}

type accountsFile struct {
	Version int                 `json:"version"`
	Owners  map[string]*account `json:"owners"`
}

// accounts keeps them.
type accounts struct {
	file  string
	mu    sync.Mutex
	by    map[grid.OwnerID]*account
	dirty bool
}

// openAccounts reads the file. Work is not refused because it cannot be read:
// then it begins anew.
func openAccounts(file string) (*accounts, error) {
	a := &accounts{file: file, by: map[grid.OwnerID]*account{}}
	data, err := disk.ReadFile(file, maxAccountsBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		var by map[grid.OwnerID]*account
		if by, err = parseAccounts(data); err == nil {
			a.by = by
		}
	}
	return a, err
}

func parseAccounts(data []byte) (map[grid.OwnerID]*account, error) {
	var f accountsFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	if f.Version != accountsVersion || len(f.Owners) > maxAccounts {
		return nil, fmt.Errorf("accounts of version %d with %d owners", f.Version, len(f.Owners))
	}
	out := map[grid.OwnerID]*account{}
	for text, one := range f.Owners {
		owner, err := grid.ParseOwnerID(text)
		if err != nil || one == nil || len(one.Days) > accountDays {
			return nil, fmt.Errorf("account of %q is damaged", text)
		}
		sums := []*float64{&one.For, &one.From, &one.Recent.For, &one.Recent.From}
		for i := range one.Days {
			sums = append(sums, &one.Days[i].For, &one.Days[i].From)
		}
		for _, sum := range sums {
			if !(*sum >= 0 && *sum <= maxCoreSeconds) {
				return nil, fmt.Errorf("account of %q is damaged", text)
			}
		}
		out[owner] = one
	}
	return out, nil
}

// run writes them now and then, and at the end.
func (a *accounts) run(ctx context.Context) error {
	ticker := time.NewTicker(accountEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return a.save()
		case <-ticker.C:
			if err := a.save(); err != nil {
				return err
			}
		}
	}
}

func (a *accounts) save() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.dirty {
		return nil
	}
	f := accountsFile{accountsVersion, map[string]*account{}}
	for owner, one := range a.by {
		f.Owners[owner.String()] = one
	}
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := disk.WriteFile(a.file, data, 0o600); err != nil {
		return fmt.Errorf("accounts of work: %w", err)
	}
	a.dirty = false
	return nil
}

// gave books work that was done here for an owner.
func (a *accounts) gave(owner grid.OwnerID, took time.Duration) {
	a.book(owner, func(one *account, day *accountDay, s float64) {
		one.Tasks++
		add(s, &one.For, &one.Recent.For, &day.For)
	}, took)
}

// got books work that an owner's peer did for this one.
func (a *accounts) got(owner grid.OwnerID, took time.Duration) {
	a.book(owner, func(one *account, day *accountDay, s float64) {
		add(s, &one.From, &one.Recent.From, &day.From)
	}, took)
}

func add(s float64, sums ...*float64) {
	for _, sum := range sums {
		*sum = min(*sum+s, maxCoreSeconds)
	}
}

func (a *accounts) book(owner grid.OwnerID, put func(*account, *accountDay, float64), took time.Duration) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	one := a.by[owner]
	if one == nil {
		a.makeRoom()
		one = &account{}
		a.by[owner] = one
	}
	one.decay(now)
	put(one, one.today(now), max(0, took.Seconds()))
	a.dirty = true
}

// makeRoom forgets the owner whose last work is longest ago; a.mu is held.
func (a *accounts) makeRoom() {
	if len(a.by) < maxAccounts {
		return
	}
	oldest := slices.MinFunc(slices.Collect(maps.Keys(a.by)), func(x, y grid.OwnerID) int {
		return cmp.Or(a.by[x].Recent.At.Compare(a.by[y].Recent.At), cmp.Compare(x.String(), y.String()))
	})
	delete(a.by, oldest)
}

// decay brings the recent sums up to now. A clock that was set back decays
// nothing.
func (one *account) decay(now time.Time) {
	if passed := now.Sub(one.Recent.At); passed > 0 && !one.Recent.At.IsZero() {
		factor := math.Exp2(-passed.Seconds() / balanceHalf.Seconds())
		one.Recent.For *= factor
		one.Recent.From *= factor
	}
	one.Recent.At = now.Round(0)
}

const dayFormat = "2006-01-02"

// today returns the account's line of this day.
func (one *account) today(now time.Time) *accountDay {
	name := now.Format(dayFormat)
	if n := len(one.Days); n == 0 || one.Days[n-1].Day != name {
		one.Days = append(one.Days, accountDay{Day: name})
		one.Days = one.Days[max(0, len(one.Days)-accountDays):]
	}
	return &one.Days[len(one.Days)-1]
}

// weight is how many turns an owner has for one of others, by what it gave and
// got lately.
func (one *account) weight(now time.Time) float64 {
	if one == nil {
		return 1
	}
	recent := *one
	recent.decay(now)
	return min(maxWeight, max(1./maxWeight, (recent.Recent.From+balanceGrace)/(recent.Recent.For+balanceGrace)))
}

// weight is what turns go by: this peer's own owner comes first.
func (p *Peer) weight(owner grid.OwnerID) float64 {
	if owner == p.owner() {
		return math.Inf(1)
	}
	a := p.work.accounts
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.by[owner].weight(time.Now())
}

// tookWork books a task that a peer did for this owner.
func (p *Peer) tookWork(by grid.PeerID, took time.Duration) {
	if owner, ok := p.roster.View().OwnerOf(by); ok && owner != p.owner() {
		p.work.accounts.got(owner, took)
	}
}

// ownerWork lists the accounts, most given first.
func (p *Peer) ownerWork() []*controlv1.OwnerWork {
	a, now := p.work.accounts, time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*controlv1.OwnerWork
	for owner, one := range a.by {
		w := &controlv1.OwnerWork{
			Owner: owner.String(), Names: p.namesOfOwner(owner), Self: owner == p.owner(),
			CoreSecondsFor: one.For, CoreSecondsFrom: one.From, TasksFor: one.Tasks, Weight: one.weight(now),
		}
		recent := *one
		recent.decay(now)
		w.Balance = recent.Recent.From - recent.Recent.For
		today, week := now.Format(dayFormat), now.AddDate(0, 0, 1-accountDays).Format(dayFormat)
		for _, day := range one.Days {
			if day.Day == today {
				w.TodayFor, w.TodayFrom = day.For, day.From
			}
			if day.Day >= week && day.Day <= today {
				w.WeekFor += day.For
				w.WeekFrom += day.From
			}
		}
		out = append(out, w)
	}
	slices.SortFunc(out, func(x, y *controlv1.OwnerWork) int {
		return cmp.Or(cmp.Compare(y.CoreSecondsFor, x.CoreSecondsFor), cmp.Compare(x.Owner, y.Owner))
	})
	return out
}

package node

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
)

func TestAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "work")
		a, err := openAccounts(file)
		if err != nil {
			t.Fatal(err)
		}
		friend, taker := grid.OwnerID{1}, grid.OwnerID{2}
		for range 10 {
			a.got(friend, 2*time.Hour)
			a.gave(taker, 2*time.Hour)
			time.Sleep(24 * time.Hour)
		}
		a.got(friend, -time.Hour) // a lie
		now := time.Now()
		if w := a.by[friend].weight(now); w != maxWeight {
			t.Errorf("a friend weighs %v", w)
		}
		if w := a.by[taker].weight(now); w != 1./maxWeight {
			t.Errorf("who only takes weighs %v", w)
		}
		if w := a.by[grid.OwnerID{3}].weight(now); w != 1 {
			t.Errorf("a stranger weighs %v", w)
		}
		if w := a.by[taker].weight(now.Add(200 * 24 * time.Hour)); w < 0.99 {
			t.Errorf("after half a year who took weighs %v", w)
		}
		if err := a.save(); err != nil {
			t.Fatal(err)
		}
		again, err := openAccounts(file)
		if err != nil {
			t.Fatal(err)
		}
		one := again.by[taker]
		if one == nil || one.For != 20*3600 || one.Tasks != 10 || len(one.Days) != accountDays || one.Days[accountDays-1].For != 2*3600 {
			t.Errorf("%+v", one)
		}
	})
}

func TestAccountsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := openAccounts(filepath.Join(t.TempDir(), "work"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range maxAccounts + 5 {
			a.gave(grid.OwnerID{byte(i >> 8), byte(i)}, time.Second)
			time.Sleep(time.Second)
		}
		if len(a.by) != maxAccounts || a.by[grid.OwnerID{0, 4}] != nil || a.by[grid.OwnerID{0, 5}] == nil {
			t.Errorf("%d accounts", len(a.by))
		}
		for range 3 {
			a.gave(grid.OwnerID{9}, math.MaxInt64)
		}
		if err := a.save(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(a.file); err != nil || info.Size() > maxAccountsBytes {
			t.Error(info.Size(), err)
		}
		if _, err := openAccounts(a.file); err != nil {
			t.Error(err)
		}
	})
}

func TestDamagedAccountsBeginAnew(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"owners":{"x":{}}}`, `{"version":1,"owners":{"x":null}}`} {
		file := filepath.Join(t.TempDir(), "work")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := openAccounts(file)
		if err == nil || a == nil || len(a.by) != 0 {
			t.Errorf("%q: %+v, %v", text, a, err)
		}
	}
}

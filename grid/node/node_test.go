package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"gotong/grid"
	"gotong/grid/peernet"
	controlv1 "gotong/proto/control/v1"
	gridv1 "gotong/proto/grid/v1"
	shardsv1 "gotong/proto/shards/v1"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/storage"
	"gotong/tasks"
)

// TestEveryMethodHasARule: what other peers may call is a closed table.
func TestEveryMethodHasARule(t *testing.T) {
	var services peernet.Services
	gridv1.RegisterGridServer(&services, gridv1.UnimplementedGridServer{})
	shardsv1.RegisterShardsServer(&services, shardsv1.UnimplementedShardsServer{})
	tasksv1.RegisterTasksServer(&services, tasksv1.UnimplementedTasksServer{})
	tasksv1.RegisterKeepersServer(&services, tasksv1.UnimplementedKeepersServer{})
	table := methodRules()
	if err := table.Check(&services); err != nil {
		t.Error(err)
	}
	if len(table) < 10 {
		t.Errorf("only %d methods were seen", len(table))
	}
	for name := range table {
		without := methodRules()
		delete(without, name)
		if err := without.Check(&services); !errors.Is(err, peernet.ErrRules) {
			t.Errorf("a missing rule for %s is not noticed: %v", name, err)
		}
	}
}

// TestSizeTextIsExact: what is written into the configuration reads back as it was.
func TestSizeTextIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Size(rapid.Uint64Range(0, 1<<50).Draw(t, "bytes"))
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Size
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Fatalf("%d became %q became %d: %v", want, text, got, err)
		}
	})
	for text, want := range map[string]Size{"200GB": 200e9, "200GiB": 200 << 30, "5 MB": 5e6, "7": 7} {
		var got Size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
}

// TestConfigFaultsComeTogether: each fault names its key.
func TestConfigFaultsComeTogether(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Listen, c.Advertise, c.Slots, c.Redundancy = "nowhere", []string{":1"}, -1, "9+99"
	c.Gossip.Preset, c.Log.Level, c.Tasks.MaxMemory, c.Tasks.MaxTimeout = "moon", "loud", 1, 0
	c.Name = strings.Repeat("x", grid.MaxNameLen+1)
	err := c.Validate()
	for _, key := range []string{"name:", "listen:", "advertise:", "slots:", "redundancy:", "gossip.preset:", "log.level:", "tasks.max_memory:", "tasks.max_timeout:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("no fault names %s: %v", key, err)
		}
	}
}

// TestAddresses: what is advertised comes first, and a peer that listens on all
// interfaces names none of them "all".
func TestAddresses(t *testing.T) {
	one, err := addresses([]string{"example.org:7"}, &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 7000})
	if err != nil || !slices.Equal(one, []string{"example.org:7", "10.1.2.3:7000"}) {
		t.Errorf("got %v, %v", one, err)
	}
	for _, ip := range []net.IP{nil, net.IPv4zero, net.IPv6unspecified} {
		all, err := addresses(nil, &net.TCPAddr{IP: ip, Port: 7000})
		if err != nil || len(all) == 0 || len(all) > grid.MaxAddresses {
			t.Errorf("%v: %v, %v", ip, all, err)
		}
		for _, address := range all {
			host, _, err := net.SplitHostPort(address)
			if err != nil || net.ParseIP(host) == nil || net.ParseIP(host).IsUnspecified() {
				t.Errorf("%v: address %q", ip, address)
			}
		}
	}
	many := make([]string, 2*grid.MaxAddresses)
	for i := range many {
		many[i] = fmt.Sprintf("h%d:1", i)
	}
	if got, _ := addresses(many, &net.TCPAddr{IP: net.IPv4zero, Port: 1}); len(got) != grid.MaxAddresses {
		t.Errorf("%d addresses", len(got))
	}
}

// TestSocketPathFits: sockets have short names, homes may have long ones.
func TestSocketPathFits(t *testing.T) {
	short, long := home{"/srv/g"}, home{"/" + strings.Repeat("d/", 200)}
	if got := short.socketPath(); !strings.HasPrefix(got, short.dir) {
		t.Errorf("short home: %s", got)
	}
	if got := long.socketPath(); len(got) > maxSocketPath {
		t.Errorf("long home: %d bytes", len(got))
	}
	if long.socketPath() == (home{long.dir + "x"}).socketPath() {
		t.Error("two homes share one socket")
	}
}

// TestErrorsKeepTheirClass: the class of an error, and its words, reach the
// command whole.
func TestErrorsKeepTheirClass(t *testing.T) {
	for _, test := range []struct {
		err  error
		kind controlv1.Kind
	}{
		{&storage.Error{Op: "get", Err: storage.ErrTooFewShards}, controlv1.Kind_KIND_TOO_FEW},
		{fmt.Errorf("put: %w", storage.ErrTooFewPeers), controlv1.Kind_KIND_TOO_FEW},
		{storage.ErrQuota, controlv1.Kind_KIND_REFUSED},
		{storage.ErrCorrupt, controlv1.Kind_KIND_CORRUPT},
		{tasks.ErrInvalid, controlv1.Kind_KIND_USAGE},
		{context.DeadlineExceeded, controlv1.Kind_KIND_TEMPORARY},
		{errors.New("else"), controlv1.Kind_KIND_FAILED},
		{&Failure{Kind: controlv1.Kind_KIND_BUSY, What: "w", Meaning: "m", Next: "n"}, controlv1.Kind_KIND_BUSY},
	} {
		s, ok := status.FromError(controlError(test.err))
		if !ok || len(s.Details()) != 1 {
			t.Errorf("%v: status %v", test.err, s)
			continue
		}
		detail, ok := s.Details()[0].(*controlv1.ErrorDetail)
		if !ok || detail.Kind != test.kind || detail.What != test.err.Error() {
			t.Errorf("%v became %v", test.err, detail)
		}
	}
	if controlError(nil) != nil {
		t.Error("no error became one")
	}
}

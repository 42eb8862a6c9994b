package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	controlv1 "gotong/proto/control/v1"
)

// grid asks the running peer; without one it says so.
func (d *doctor) grid(ctx context.Context) {
	err := d.app.callPeer(ctx, func(ctx context.Context, peer controlv1.ControlClient) error {
		status, err := peer.Status(ctx, &controlv1.StatusRequest{})
		if err != nil {
			return err
		}
		peers, err := peer.Peers(ctx, &controlv1.PeersRequest{})
		if err != nil {
			return err
		}
		d.should("peer", nil, "it runs", "")
		d.port(ctx, status.Listen)
		outside, err := peer.Outside(ctx, &controlv1.OutsideRequest{})
		if err != nil {
			return err
		}
		d.reach(outside.Views, status.Listen)
		d.clocks(outside.Views)
		d.donating(status)
		d.recovery(status)
		d.versions(peers.Peers)
		d.sites(peers.Peers)
		for _, p := range status.Problems {
			d.add(finding{name: "status", why: p.What + ": " + p.Why, do: p.Do})
		}
		return nil
	})
	if err != nil {
		d.should("peer", errors.New(failureOf(err).what), "", "gotong up; what concerns the grid is not checked without it")
	}
}

func (d *doctor) port(ctx context.Context, listen string) {
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || (ip != nil && ip.IsUnspecified())) {
		host = "localhost"
	}
	if err == nil {
		err = dials(ctx, net.JoinHostPort(host, port))
	}
	d.must("port", err, "answers on this machine at "+listen, "see whether another program or a firewall has the port")
}

// reach adds to the check of the port what members say who tried to dial it.
func (d *doctor) reach(views []*controlv1.OutsideView, listen string) {
	f := d.finding("port")
	if f == nil || !f.ok {
		return
	}
	var tried int
	var cannot []string
	for _, v := range views {
		if v.Dialled {
			tried++
			if !v.Dialable {
				cannot = append(cannot, v.Name)
			}
		}
	}
	_, port, _ := net.SplitHostPort(listen)
	switch {
	case tried == 0:
		f.why += "; no member has tried to dial it"
	case len(cannot) == 0:
		f.why += fmt.Sprintf("; %s dialled it", countText(uint64(tried), "member", "members"))
	default:
		f.ok, f.required = false, false
		f.why = fmt.Sprintf("it %s, but %d of %s cannot dial it: %s. They reach this peer over connections that it keeps; another peer of that kind does not",
			f.why, len(cannot), countText(uint64(tried), "member", "members"), strings.Join(cannot, ", "))
		f.do = "let port " + port + " through the firewall, forward it on the router, and name the address under advertise"
	}
}

// maxSkew is how far the clock may be from the median of the members' clocks.
const maxSkew = 5 * time.Second

// clocks adds to the check of the clock how it differs from those of the members.
func (d *doctor) clocks(views []*controlv1.OutsideView) {
	var ahead []time.Duration
	for _, v := range views {
		if v.HasClock {
			ahead = append(ahead, time.Duration(v.ClockAheadMilli)*time.Millisecond)
		}
	}
	f := d.finding("clock")
	if f == nil || len(ahead) == 0 {
		return
	}
	slices.Sort(ahead)
	median := ahead[len(ahead)/2]
	if len(ahead)%2 == 0 {
		median = median/2 + ahead[len(ahead)/2-1]/2
	}
	of := countText(uint64(len(ahead)), "member", "members")
	if median.Abs() <= maxSkew {
		f.why += fmt.Sprintf("; within %s of the median of %s", max(median.Abs().Round(10*time.Millisecond), 10*time.Millisecond), of)
		return
	}
	side := "behind"
	if median < 0 {
		side = "ahead of"
	}
	f.ok = false
	f.why += fmt.Sprintf("; it is %s %s the median of %s", median.Abs().Round(time.Second), side, of)
	f.do = "let it be set by the network, for example: timedatectl set-ntp true; or tell those friends that theirs are wrong"
}

// finding returns what was found of a thing; nil when nothing was.
func (d *doctor) finding(name string) *finding {
	if i := slices.IndexFunc(d.findings, func(f finding) bool { return f.name == name }); i >= 0 {
		return &d.findings[i]
	}
	return nil
}

func (d *doctor) donating(s *controlv1.StatusResponse) {
	if s.Donating == nil || s.Donating.Slots == 0 {
		d.should("donor's rules", nil, "this peer gives no slots", "")
		return
	}
	var reasons []string
	for _, r := range s.Donating.Reasons {
		reasons = append(reasons, r.Text)
	}
	found := fmt.Sprintf("%d of %d slots may run tasks now", s.Donating.Allowed, s.Donating.Slots)
	if len(reasons) > 0 {
		found += ": " + strings.Join(reasons, "; ")
	}
	d.add(finding{name: "donor's rules", ok: s.Donating.Allowed > 0, why: found, do: "gotong status shows what was decided from what"})
}

func (d *doctor) recovery(s *controlv1.StatusResponse) {
	last := s.LastDrill
	switch {
	case len(s.Backups) == 0:
		d.should("recovery", nil, "there is no backup yet that could come back", "")
	case last == nil || last.TimeUnix == 0:
		d.should("recovery", errors.New("it was never tried whether the backups come back"), "", "gotong drill --phrase-file FILE, with the phrase that you wrote down")
	case !last.Ok:
		d.should("recovery", errors.New("the last drill failed: "+last.Problem), "", "gotong drill")
	default:
		d.should("recovery", nil, "the last drill passed on "+time.Unix(last.TimeUnix, 0).Format(time.DateOnly), "")
	}
}

// versions compares the versions of the peers with that of this one, which comes
// first.
func (d *doctor) versions(peers []*controlv1.PeerInfo) {
	var others []string
	for _, p := range peers {
		if p.Version != "" && p.Version != peers[0].Version {
			others = append(others, fmt.Sprintf("%s has %s", p.Name, p.Version))
		}
	}
	var err error
	if len(others) > 0 {
		err = errors.New("not all peers have the same: " + strings.Join(others, ", "))
	}
	d.should("versions", err, "all peers that are known have the same", "bring all peers to one version")
}

// sites looks for two that have one public address, and so may fail together.
func (d *doctor) sites(peers []*controlv1.PeerInfo) {
	at := map[string][]string{} // sites by address
	for _, p := range peers {
		host, _, err := net.SplitHostPort(p.Address)
		ip := net.ParseIP(host)
		if err != nil || ip == nil || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() {
			continue
		}
		if !slices.Contains(at[host], p.Site) {
			at[host] = append(at[host], p.Site)
		}
	}
	var shared []string
	for host, sites := range at {
		if len(sites) > 1 {
			slices.Sort(sites)
			shared = append(shared, fmt.Sprintf("%s at %s", strings.Join(sites, " and "), host))
		}
	}
	slices.Sort(shared)
	var err error
	if len(shared) > 0 {
		err = errors.New("sites that share an address may fail together: " + strings.Join(shared, "; "))
	}
	d.should("sites", err, "no two share a public address", "give peers of one place one label: site in the configuration")
}

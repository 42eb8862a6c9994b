package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
)

// peerJSON is one peer as scripts read it.
type peerJSON struct {
	ID          string  `json:"id"`
	Name        string  `json:"name"`
	Owner       string  `json:"owner"`
	Site        string  `json:"site"`
	State       string  `json:"state"`
	Address     string  `json:"address"`
	Version     string  `json:"version"`
	PledgeBytes uint64  `json:"pledge_bytes"`
	UsedBytes   uint64  `json:"used_bytes"`
	Slots       uint32  `json:"slots"`
	RTT         float64 `json:"rtt_ms"`
	Forked      bool    `json:"forked,omitempty"`
	Admin       bool    `json:"admin,omitempty"`

	Audit *auditJSON `json:"audit,omitempty"`
}

// auditJSON is what this peer has seen of another one as a holder.
type auditJSON struct {
	Grade   string  `json:"grade"`
	Why     string  `json:"why"`
	Detects float64 `json:"detects"`
	Success uint64  `json:"success"`
	Wrong   uint64  `json:"wrong"`
	Missing uint64  `json:"missing"`
	Away    uint64  `json:"away"`
	Timeout uint64  `json:"timeout"`
}

func newAuditJSON(r *controlv1.AuditRecord) *auditJSON {
	if r == nil {
		return nil
	}
	return &auditJSON{r.Grade, r.Why, r.Detects, r.Success, r.Wrong, r.Missing, r.Away, r.Timeout}
}

// newPeersJSON returns a list that is empty, and not null, for no peers.
func newPeersJSON(peers []*controlv1.PeerInfo) []peerJSON {
	out := make([]peerJSON, 0, len(peers))
	for _, p := range peers {
		out = append(out, peerJSON{p.Id, p.Name, p.Owner, p.Site, p.State, p.Address, p.Version,
			p.PledgeBytes, p.UsedBytes, p.Slots, p.RttMs, p.Forked, p.Admin, newAuditJSON(p.Audit)})
	}
	return out
}

func (a *app) peersCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "peers",
		Short: "List the peers of the grid, this one first",
		Long: `Peers lists who is a member, with what each gives and holds. AUDIT is what this
peer thinks of a holder (new, good, fair, poor or bad) and how many of its
challenges the holder passed; --json says why, and how likely they would have
found one that dropped a tenth of what it holds.`,
		Example: "  gotong peers\n  gotong peers --json",
		Args:    exactArgs(0),
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			list, err := peer.Peers(ctx, &controlv1.PeersRequest{Live: true})
			if err != nil {
				return err
			}
			return a.printPeers(list.Peers)
		})
	}
	return c
}

func (a *app) printPeers(peers []*controlv1.PeerInfo) error {
	if a.json {
		return a.printJSON(struct {
			Peers []peerJSON `json:"peers"`
		}{newPeersJSON(peers)})
	}
	return a.table("NAME\tPEER\tSTATE\tSITE\tGIVES\tHOLDS\tSLOTS\tRTT\tAUDIT\tADDRESS", func(w io.Writer) {
		for _, p := range peers {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", printable(p.Name), p.Id[:8], stateText(p), printable(shortSite(p)),
				bytesText(p.PledgeBytes), bytesText(p.UsedBytes), p.Slots, rttText(p.RttMs), auditText(p.Audit), printable(p.Address))
		}
	})
}

const agoSuffix = " ago" // of what humanize says of the past

// stateText is the state with what else the reader should know of it.
func stateText(p *controlv1.PeerInfo) string {
	text := p.State
	if p.State == string(grid.StateAway) && p.SinceUnix > 0 {
		if ago := humanize.Time(time.Unix(p.SinceUnix, 0)); strings.HasSuffix(ago, agoSuffix) {
			text += " for " + strings.TrimSuffix(ago, agoSuffix)
		}
	}
	if p.Forked {
		text += " (forked)"
	}
	return text
}

// shortSite abbreviates a site that is only the owner's id.
func shortSite(p *controlv1.PeerInfo) string {
	if p.Site == p.Owner {
		return "owner " + p.Owner[:8]
	}
	return p.Site
}

// auditText is a grade with what speaks for it: answered of all that count.
func auditText(r *controlv1.AuditRecord) string {
	if r == nil || r.Success+r.Wrong+r.Missing+r.Away+r.Timeout == 0 {
		return "-"
	}
	return fmt.Sprintf("%s %d/%d", r.Grade, r.Success, r.Success+r.Wrong+r.Missing)
}

func rttText(ms float64) string {
	if ms <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fms", ms)
}

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

const defaultInviteValid = 24 * time.Hour

func (a *app) inviteCommand() *cobra.Command {
	var valid time.Duration
	var admin bool
	c := &cobra.Command{
		Use:   "invite",
		Short: "Print a code with which one friend can join",
		Long: `Invite prints one line. Send it to a friend over a channel that you trust: whoever
uses it first becomes a member. It works once, while this peer is running; you
may walk away.`,
		Example: "  gotong invite\n  gotong invite --valid 1h --json",
		Args:    exactArgs(0),
	}
	c.Flags().DurationVar(&valid, "valid", defaultInviteValid, "how long the code works")
	c.Flags().BoolVar(&admin, "admin", false, "the invited owner may remove members too")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			made, err := peer.Invite(ctx, &controlv1.InviteRequest{ValidSeconds: int64(valid.Seconds()), Admin: admin})
			if err != nil {
				return err
			}
			return a.printInvite(made)
		})
	}
	return c
}

func (a *app) printInvite(made *controlv1.InviteResponse) error {
	expires := time.Unix(made.ExpiresUnix, 0)
	if a.json {
		return a.printJSON(struct {
			Code    string    `json:"code"`
			Expires time.Time `json:"expires"`
		}{made.Code, expires.UTC()})
	}
	fmt.Fprintln(a.stdout, made.Code)
	if isTerminal(a.stdout) {
		qrterminal.GenerateHalfBlock(made.Code, qrterminal.L, a.stdout)
	}
	fmt.Fprintf(a.stderr, "Works once, until %s, while this peer runs. Your friend runs: gotong join CODE\n", expires.Format(time.DateTime))
	return nil
}

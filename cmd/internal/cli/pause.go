package cli

import (
	"context"
	"fmt"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

// pausedJSON is what gotong pause and gotong resume answer.
type pausedJSON struct {
	Paused   bool         `json:"paused"`
	Until    *time.Time   `json:"until"` // null: until gotong resume
	Donating donatingJSON `json:"donating"`
}

func (a *app) pauseCommand() *cobra.Command {
	var length time.Duration
	c := &cobra.Command{
		Use:   "pause [--for DURATION]",
		Short: "Run no tasks on this machine for a while",
		Long: `Pause stops all tasks on this machine at once, whosever they are, and takes no more
until gotong resume, or until the time is over. It holds across restarts. Tasks that
are resumed within donate.hold go on where they were; others run elsewhere. What
this machine keeps for others stays in reach.`,
		Example: "  gotong pause\n  gotong pause --for 2h",
		Args:    exactArgs(0),
	}
	c.Flags().DurationVar(&length, "for", 0, "how long, such as 90m (default: until gotong resume)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if c.Flags().Changed("for") && length < time.Second {
			return &failure{code: exitUsage, what: "--for wants at least 1s", meaning: "nothing was changed", next: "gotong pause --for 2h"}
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			r, err := peer.Pause(ctx, &controlv1.PauseRequest{ForSeconds: uint64(length.Seconds()), By: userName()})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(pausedJSON{true, timeOrNull(r.UntilUnix), newDonatingJSON(r.Donating)})
			}
			until := "gotong resume"
			if r.UntilUnix > 0 {
				until = time.Unix(r.UntilUnix, 0).Format("2006-01-02 15:04:05")
			}
			fmt.Fprintf(a.stdout, "No tasks run on this machine until %s.\n", until)
			return nil
		})
	}
	return c
}

func (a *app) resumeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "resume",
		Short: "Let tasks run on this machine again",
		Long: `Resume ends what gotong pause began. The other rules of the donor hold as before;
it says what they allow now.`,
		Example: "  gotong resume",
		Args:    exactArgs(0),
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			r, err := peer.Resume(ctx, &controlv1.ResumeRequest{})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(pausedJSON{false, nil, newDonatingJSON(r.Donating)})
			}
			if !r.WasPaused {
				fmt.Fprint(a.stdout, "It was not paused. ")
			}
			fmt.Fprintf(a.stdout, "%d of %s may run tasks now.\n", r.Donating.GetAllowed(), countText(uint64(r.Donating.GetSlots()), "slot", "slots"))
			for _, reason := range r.Donating.GetReasons() {
				fmt.Fprintf(a.stdout, "  %s\n", printable(reason.Text))
			}
			return nil
		})
	}
	return c
}

// userName is who runs this command, for people.
func userName() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

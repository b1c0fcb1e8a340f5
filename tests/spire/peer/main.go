// peer is what others build with go-spiffe: a server and a client of plain SPIFFE mTLS, with go-spiffe's own tlsconfig and an SVID from the
// Workload API. Nothing in it knows Postern.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const usage = `usage: peer serve --socket URI --address HOST:PORT --authorize SPIFFE-ID
       peer call  --socket URI --address HOST:PORT --authorize SPIFFE-ID --send TEXT

serve  accepts that SPIFFE ID only and sends every line back with "echo: " before it, until it is killed
call   connects, accepts that SPIFFE ID only, sends one line, prints the answer and who gave it
`

func fail(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// Who the other end is; go-spiffe has verified it in the handshake.
func peerOf(connection *tls.Conn) spiffeid.ID {
	id, err := x509svid.IDFromCert(connection.ConnectionState().PeerCertificates[0])
	fail(err)
	return id
}

func echo(connection *tls.Conn) {
	defer connection.Close()
	if err := connection.Handshake(); err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Printf("accepted: %s alpn: %q\n", peerOf(connection), connection.ConnectionState().NegotiatedProtocol)
	lines := bufio.NewScanner(connection)
	for lines.Scan() {
		fmt.Fprintf(connection, "echo: %s\n", lines.Text())
	}
	fmt.Println("ended:", lines.Err())
}

func main() {
	if len(os.Args) < 2 || (os.Args[1] != "serve" && os.Args[1] != "call") {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	socket := flags.String("socket", "", "")
	address := flags.String("address", "", "")
	authorized := flags.String("authorize", "", "")
	text := flags.String("send", "", "")
	fail(flags.Parse(os.Args[2:]))

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(*socket)))
	fail(err)
	defer source.Close()
	id, err := spiffeid.FromString(*authorized)
	fail(err)

	if os.Args[1] == "serve" {
		listener, err := tls.Listen("tcp", *address, tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(id)))
		fail(err)
		fmt.Println("listening:", listener.Addr())
		for {
			connection, err := listener.Accept()
			fail(err)
			go echo(connection.(*tls.Conn))
		}
	}

	dialer := &net.Dialer{Timeout: time.Minute}
	connection, err := tls.DialWithDialer(dialer, "tcp", *address, tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(id)))
	fail(err)
	fail(connection.SetDeadline(time.Now().Add(time.Minute)))
	fmt.Println("connected:", peerOf(connection))
	_, err = fmt.Fprintln(connection, *text)
	fail(err)
	fail(connection.CloseWrite())
	answer, err := io.ReadAll(connection)
	fail(err)
	fmt.Printf("answer: %s", answer)
}

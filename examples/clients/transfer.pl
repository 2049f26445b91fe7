#!/usr/bin/perl
# transfer.pl ENDPOINT ID: sends one transfer to a worker (Debian: libnanomsg-raw-perl).
use strict;
use warnings;
use NanoMsg::Raw;

my ($endpoint, $id) = @ARGV;
die "usage: transfer.pl ENDPOINT ID\n" unless defined $id;
my $s = nn_socket(AF_SP, NN_REQ);
nn_setsockopt($s, NN_SOL_SOCKET, NN_RCVTIMEO, 10000);
nn_setsockopt($s, NN_SOL_SOCKET, NN_SNDTIMEO, 10000);
defined nn_connect($s, $endpoint) or die nn_strerror(nn_errno()), "\n";
my $request = '{"id":"' . $id . '","require":[{"key":"acct/1","min":100}],'
    . '"add":{"acct/1":-100,"acct/2":100},'
    . '"events":[{"type":"transferred","data":{"from":1,"to":2,"amount":100}}]}';
defined nn_send($s, $request, 0) or die nn_strerror(nn_errno()), "\n";
defined nn_recv($s, my $answer, 65536, 0) or die nn_strerror(nn_errno()), "\n";
print "$answer\n";
nn_close($s);

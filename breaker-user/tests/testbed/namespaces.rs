//! Namespaces and veth pairs, which leave nothing behind.

use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use breaker_user::testbed::fix::{Acceptor, AcceptorSettings, Initiator, InitiatorSettings};
use breaker_user::testbed::{Namespace, Offload, TwoHosts, veth};

use super::{TIMEOUT, eventually, in_testbed, log_on, names, set, skip};

#[test]
fn a_namespace_has_its_own_interfaces_and_bpf_file_system() {
    in_testbed(|hosts| {
        assert_eq!(hosts.firm.run(|| names("/sys/class/net")), set(&["eth1", "lo"]));
        let mine = || Path::new("/sys/fs/bpf/mine").exists();
        hosts.firm.run(|| fs::create_dir("/sys/fs/bpf/mine")).unwrap();
        assert!(hosts.firm.run(mine));
        assert!(!hosts.venue.run(mine) && !mine());
        // Processes and threads that are started inside are inside.
        assert!(hosts.firm.run(|| Command::new("ls").arg("/sys/fs/bpf/mine").status()).unwrap().success());
        assert!(hosts.firm.spawn(mine).join().unwrap());
        assert!(hosts.firm.run(|| hosts.venue.run(|| hosts.firm.run(mine))));
        // IPv6 addresses are usable at once, and loopback is up.
        let at = |namespace: &Namespace, address: IpAddr| {
            namespace.run(|| TcpListener::bind((address, 0)).is_ok())
        };
        assert!(at(&hosts.firm, TwoHosts::FIRM_V6) && at(&hosts.venue, TwoHosts::VENUE_V6));
        assert!(at(&hosts.firm, [127, 0, 0, 1].into()));
    });
}

#[test]
fn a_panic_inside_reaches_the_caller() {
    in_testbed(|hosts| {
        let panic = std::panic::catch_unwind(|| hosts.firm.run(|| panic!("as asked")));
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"as asked"));
        assert_eq!(hosts.firm.run(|| 1), 1);
    });
}

#[test]
fn the_end_of_a_namespace_removes_its_veth_peer() {
    in_testbed(|hosts| {
        let other = Namespace::new().unwrap();
        veth(&hosts.firm, "eth2", &other, "eth1").unwrap();
        assert_eq!(hosts.firm.run(|| names("/sys/class/net")), set(&["eth1", "eth2", "lo"]));
        // The kernel removes the veth pair only when the namespace has no user left.
        drop(other);
        assert!(eventually(|| hosts.firm.run(|| names("/sys/class/net")) == set(&["eth1", "lo"])));
    });
}

#[test]
fn interface_settings_take_effect() {
    in_testbed(|hosts| {
        let firm = &hosts.firm;
        let read = |what: &str| firm.run(|| fs::read_to_string(format!("/sys/class/net/{what}")).unwrap());
        firm.set_mtu("eth1", 9000).unwrap();
        assert_eq!(read("eth1/mtu"), "9000\n");
        for on in [false, true] {
            for offload in [Offload::Tso, Offload::Gso, Offload::Gro, Offload::TransmitChecksum] {
                firm.set_offload("eth1", offload, on).unwrap();
            }
        }
        let missing = firm.set_offload("eth7", Offload::Tso, false).unwrap_err();
        assert_eq!(missing.found.raw_os_error(), Some(rustix::io::Errno::NODEV.raw_os_error()), "{missing}");
        assert_eq!(firm.hardware_address("eth1").unwrap()[0] & 3, 2, "a locally administered address");
        assert_eq!(firm.index("eth1").unwrap().to_string(), read("eth1/ifindex").trim());
        firm.rename("eth1", "trading0").unwrap();
        firm.set_down("trading0").unwrap();
        assert_eq!(read("trading0/operstate"), "down\n");
        firm.remove("trading0").unwrap();
        assert!(firm.set_up("trading0").is_err());
        assert_eq!(hosts.venue.run(|| names("/sys/class/net")), set(&["lo"]));
    });
}

#[test]
fn a_vlan_device_carries_a_session() {
    in_testbed(|hosts| {
        for (namespace, address) in [(&hosts.firm, [10, 9, 100, 1]), (&hosts.venue, [10, 9, 100, 2])] {
            match namespace.add_vlan("eth1", "eth1.100", 100) {
                Err(error) if error.found.kind() == io::ErrorKind::Unsupported => {
                    return skip("the kernel has no VLANs");
                }
                made => made.unwrap(),
            }
            namespace.add_address("eth1.100", address.into(), 24).unwrap();
            namespace.set_up("eth1.100").unwrap();
            namespace.wait_until_up("eth1.100").unwrap();
        }
        let address = ([10, 9, 100, 2], 9001).into();
        let venue = hosts.venue.run(|| Acceptor::listen(address, AcceptorSettings::default())).unwrap();
        log_on(hosts, &Initiator::new(InitiatorSettings::new(address)));
        assert_eq!(venue.connections().len(), 1);
    });
}

#[test]
fn a_static_neighbour_is_not_resolved() {
    in_testbed(|hosts| {
        let ends = [
            (&hosts.firm, TwoHosts::FIRM, TwoHosts::FIRM_V6),
            (&hosts.venue, TwoHosts::VENUE, TwoHosts::VENUE_V6),
        ];
        for (at, (to, v4, v6)) in [(&hosts.firm, ends[1]), (&hosts.venue, ends[0])] {
            let hardware = to.hardware_address("eth1").unwrap();
            at.add_neighbour("eth1", v4, hardware).unwrap();
            at.add_neighbour("eth1", v6, hardware).unwrap();
            // ATF_COM and ATF_PERM of arp(7).
            let arp = at.run(|| fs::read_to_string("/proc/thread-self/net/arp")).unwrap();
            assert!(arp.contains(" 0x6 "), "{arp}");
        }
        let address = (TwoHosts::VENUE_V6, 9001).into();
        let venue = hosts.venue.run(|| Acceptor::listen(address, AcceptorSettings::default())).unwrap();
        let engine = Initiator::new(InitiatorSettings::new(address));
        log_on(hosts, &engine);
        assert_eq!(engine.send_orders("R", 1..=100).messages, 100);
        venue.wait_for_orders(100, TIMEOUT).unwrap();
    });
}

#[test]
fn a_route_leads_through_a_gateway() {
    in_testbed(|hosts| {
        let beyond = Namespace::new().unwrap();
        veth(&hosts.venue, "eth2", &beyond, "eth1").unwrap();
        hosts.venue.add_address("eth2", [10, 9, 1, 1].into(), 24).unwrap();
        beyond.add_address("eth1", [10, 9, 1, 2].into(), 24).unwrap();
        hosts.venue.set_up("eth2").unwrap();
        beyond.set_up("eth1").unwrap();
        hosts.venue.wait_until_up("eth2").unwrap();
        beyond.wait_until_up("eth1").unwrap();
        hosts.venue.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
        hosts.firm.add_route([10, 9, 1, 0].into(), 24, TwoHosts::VENUE).unwrap();
        beyond.add_route([0, 0, 0, 0].into(), 0, [10, 9, 1, 1].into()).unwrap();
        let address = "10.9.1.2:9001".parse().unwrap();
        let venue = beyond.run(|| Acceptor::listen(address, AcceptorSettings::default())).unwrap();
        let engine = Initiator::new(InitiatorSettings::new(address));
        log_on(hosts, &engine);
        assert_eq!(venue.connections()[0].peer.ip(), TwoHosts::FIRM);
    });
}

//! Published vectors, for every engine.

use super::*;

/// The GCM specification (McGrew and Viega), appendix B, cases 1, 2, 4, 7, 8, 10, 13, 14
/// and 16: key, nonce, AAD, plaintext, ciphertext, tag.
const GCM: [[&str; 6]; 9] = [
    [
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "",
        "58e2fccefa7e3061367f1d57a4e7455a",
    ],
    [
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "0388dace60b6a392f328c2b971b2fe78",
        "ab6e47d42cec13bdf53a67b21257bddf",
    ],
    [
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
         21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
        "5bc94fbc3221a5db94fae95ae7121a47",
    ],
    [
        "000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "",
        "cd33b28ac773f74ba00ed1f312572435",
    ],
    [
        "000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "98e7247c07f0fe411c267e4384b0f600",
        "2ff58d80033927ab8ef4d4587514f0fb",
    ],
    [
        "feffe9928665731c6d6a8f9467308308feffe9928665731c",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c\
         7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710",
        "2519498e80f1478f37ba55bd6d27618c",
    ],
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "",
        "530f8afbc74536b9a963b4f1c4cb738b",
    ],
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ],
    [
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
         8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ],
];

/// draft-mcgrew-gcm-test-01 section 4, the AES-GCM cases: key, nonce, AAD (SPI and number, with ESN
/// where there are 12 octets), plaintext, ciphertext, tag. Their IVs are no counters.
const GCM_ESP: [[&str; 6]; 14] = [
    [
        "4c80cdefbb5d10da906ac73c3613a634",
        "2e443b684956ed7e3b244cfe",
        "000043218765432100000000",
        "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000\
         045f736970045f756470037369700963796265726369747902646b000021000101020201",
        "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f\
         14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732",
        "459018148f6cbe722fd04796562dfdb4",
    ],
    [
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "0000a5f80000000a",
        "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d0010000010000\
         00000000037369700963796265726369747902646b00000100010001",
        "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827\
         c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1",
        "83b70d3aa8bc6ee4c309e9d85a41ad4a",
    ],
    [
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "112233440102030405060708",
        "4a2cbfe300000002",
        "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee00000000070024000\
         20bf0000020405b40101040201020201",
        "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a6379\
         85771d347f0545659f14e99def842d8e",
        "b335f4eecfdbf831824b4c4915956c96",
    ],
    [
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "0000000000000001",
        "4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768\
         696a6b6c6d6e6f707172737475767761626364656667686901020201",
        "4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a28445647649\
         2719ffb64de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3",
        "f821d496eeb096e98ad2b69e4799c71d",
    ],
    [
        "3de09874b388e6491988d0c3607eae1f",
        "57690e434e280000a2fca1a3",
        "42f67e3f1010101010101010",
        "4500003c99c300008001cb7c40679318010101010800085c020043006162636465666768\
         696a6b6c6d6e6f707172737475767761626364656667686901020201",
        "fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c35791765acbd87\
         01ad79845bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320a",
        "e0d731cc978ecafaeae88f00e80d6e48",
    ],
    [
        "3de09874b388e6491988d0c3607eae1f",
        "57690e434e280000a2fca1a3",
        "42f67e3f1010101010101010",
        "4500001c42a200008001441f406793b6e00000020a00f5ff01020201",
        "fba2ca845e5df9f0f22c3e6e86dd831e1fc65792cd1af9130e1379ed",
        "369f071f35e034be95f112e4e7d05d35",
    ],
    [
        "feffe9928665731c6d6a8f9467308308feffe9928665731c",
        "cafebabefacedbaddecaf888",
        "0000a5f80000000a",
        "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d0\
         75680001",
        "a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b2745\
         2144cc77",
        "95457b9652037f5318027b5b4cd7a636",
    ],
    [
        "abbccddef00112233445566778899aab",
        "decaf888cafedebaceface74",
        "000001000000000000000001",
        "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d500004e20\
         001e8c18d75b81dc91baa0476b91b924b280389d92c963bac046ec959b6266c04722b149\
         23010101",
        "18a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1c349c1d2fbec168f9190feeb\
         af2cb01984e65863965d7472b79da345e0e780191f0d2f0e0f496c226f2127b27db35724\
         e7845d68",
        "651f57e65f354f75ff17015769623436",
    ],
    [
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "73616c74616e640169766563",
        "17405e67156f3126dd0db99b",
        "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f64\
         6d540001",
        "f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31c\
         e673119e",
        "451626c2415771e3b7eebca614c89b35",
    ],
    [
        "3de09874b388e6491988d0c3607eae1f",
        "57690e434e280000a2fca1a3",
        "42f67e3f1010101010101010",
        "45000049333e00007f119182c3fb1d10c2b1d326c02831ce0035cb458003025b000001e0\
         001e8c18d65759d52284a0352c71475c8880391c764d6e5ee0496b325ae270c038994939\
         15010101",
        "fba2cad12fc1f9f00d3cebf305410db83d7784b607323d220f24b0a97d54182800cadb0f\
         68d99ef0e0c0c89ae9bea8884e52d65bc1afd0740f742444747b5b39ab533163aad4550e\
         e5160975",
        "cdb608c5769189609763b8e18caa81e2",
    ],
    [
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "73616c74616e640169766563",
        "17405e67156f3126dd0db99b",
        "636973636f0172756c657301746865016e6574776501646566696e650174686574656368\
         6e6f6c6f67696573017468617477696c6c01646566696e65746f6d6f72726f7701020201",
        "d4b7ed86a1777f2ea13d6973d324c69e7b43f826fb56831226508bebd2dceb18d0a6df10\
         e5487df074113e14c641024e3e6773d91a62ee429b043a10e3efe6b012a49363412364f8",
        "c0cac587f249e56b11e24f30e44ccc76",
    ],
    [
        "7d773d00c144c525ac619d18c84a3f47",
        "d966426743457e9182443bc6",
        "335467aeffffffff",
        "01020201",
        "437f866b",
        "cb3f699fe9b0822bac961c4504bef270",
    ],
    [
        "abbccddef00112233445566778899aab",
        "decaf888cafedebaceface74",
        "000001000000000000000001",
        "746f016265016f72016e6f7401746f0162650001",
        "29c9fc69a197d038ccdd14e2ddfcaa0543332164",
        "412503524303ed3c6c5f283843af8c3e",
    ],
    [
        "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961",
        "7475726e333021696765746d",
        "796b6963ffffffffffffffff",
        "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768\
         696a6b6c6d6e6f707172737401020201",
        "f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78c\
         a4ae68a32b42458fb57dbe821dcc63b9",
        "d0937ba2945f669368661a329fb4c053",
    ],
];

/// RFC 7634 appendix A: key, nonce, AAD, plaintext with padding and trailer, ciphertext, tag.
const CHACHA_ESP: [&str; 6] = [
    "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
    "a0a1a2a31011121314151617",
    "0102030400000005",
    "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10\
     0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223\
     2425262728292a2b2c2d2e2f303132333435363701020204",
    "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6\
     14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3\
     cbec163fac469b502773f6fb94e664da9165b82829f641e0",
    "76aaa8266b7fb0f7b11b369907e1ad43",
];

/// RFC 3602 section 4, cases 1 to 5: key, IV, plaintext, ciphertext. The last is the text of an ESP
/// packet, with padding and trailer.
const CBC: [[&str; 4]; 5] = [
    [
        "06a9214036b8a15b512e03d534120006",
        "3dafba429d9eb430b422da802c9fac41",
        "53696e676c6520626c6f636b206d7367",
        "e353779c1079aeb82708942dbe77181a",
    ],
    [
        "c286696d887c9aa0611bbb3e2025a45a",
        "562e17996d093d28ddb3ba695a2e6f58",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
    ],
    [
        "6c3ea0477630ce21a2ce334aa746c2cd",
        "c782dc4c098c66cbd9cd27d825682c81",
        "5468697320697320612034382d62797465206d657373616765202865786163746c\
         7920332041455320626c6f636b7329",
        "d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5\
         021c19216bad525c8579695d83ba2684",
    ],
    [
        "56e47a38c5598974bc46903dba290349",
        "8ce82eefbea0da3c44699ed7db51b7d9",
        "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf\
         c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf",
        "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e\
         35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55",
    ],
    [
        "90d382b410eeba7ad938c46cec1a82bf",
        "e96e8c08ab465763fd098d45dd3ff893",
        "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f1011121314151617\
         18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637\
         0102030405060708090a0b0c0d0e0e01",
        "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856\
         a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a\
         a269add047ad2d5913ac19b7cfbad4a6",
    ],
];

/// RFC 4868 section 2.7.2.1, AUTH256-1 to 4: key, data, ICV.
const HMAC: [[&str; 3]; 4] = [
    [
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "4869205468657265",
        "198a607eb44bfbc69903a0f1cf2bbdc5",
    ],
    [
        "4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665",
        "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        "167f928588c5cc2eef8e3093caa0e87c",
    ],
    [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         dddddddddddddddddddddddddddddddddddd",
        "cdcb1220d1ecccea91e53aba3092f962",
    ],
    [
        "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
        "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\
         cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
        "372efcf9b40b35c2115b1346903d2ef4",
    ],
];

/// A whole ESP packet of a combined mode with an explicit IV, and the high half of its number.
fn packet(nonce: &[u8], aad: &[u8], text: &[u8], tag: &[u8]) -> (Vec<u8>, Option<u32>) {
    let word = |at: usize| aad[at..at + 4].to_vec();
    let (low, high) = match aad.len() {
        8 => (word(4), None),
        _ => (
            word(8),
            Some(u32::from_be_bytes(word(4).try_into().unwrap())),
        ),
    };
    let esp = [&word(0), &low, &nonce[4..], text, tag].concat();
    (esp, high)
}

/// Seals and opens one packet of a vector with one engine, in a burst.
fn check_packet(engine: Engine, transform: Transform, vector: [&str; 6]) {
    let [key, nonce, aad, plain, cipher, tag] = vector.map(octets);
    let suite = EspSuite::new(transform, key.len()).unwrap();
    let material = KeyMaterial::new(&[&key[..], &nonce[..4]].concat());
    let key = EspKey::new(engine, suite, &material).unwrap();
    let (open, high) = packet(&nonce, &aad, &plain, &[0; ICV_LENGTH]);
    let (sealed, _) = packet(&nonce, &aad, &cipher, &tag);
    let mut esp = open.clone();
    assert!(seal_one(&key, &mut esp, high));
    assert_eq!(esp, sealed, "{engine:?}");
    assert!(open_one(&key, &mut esp, high));
    let end = open.len() - ICV_LENGTH;
    assert_eq!(esp[..end], open[..end], "{engine:?}");
    // The high half is authenticated, and so is whether there is one.
    for wrong in [None, Some(0x1234_5678)] {
        if wrong == high {
            continue;
        }
        let mut esp = sealed.clone();
        assert!(!open_one(&key, &mut esp, wrong));
    }
}

#[test]
fn rfc4106_every_engine_gives_the_esp_packets_of_the_gcm_test_draft() {
    for engine in engines() {
        for vector in GCM_ESP {
            check_packet(engine, Transform::AesGcm16, vector);
        }
    }
}

#[test]
fn rfc7634_appendix_a_every_engine_gives_the_packet_with_chacha20_poly1305() {
    for engine in engines() {
        check_packet(engine, Transform::ChaCha20Poly1305, CHACHA_ESP);
    }
}

/// RFC 8750 section 4: the packets are those of the explicit transforms without their IV, if that was
/// the number.
#[test]
fn rfc8750_section_4_implicit_ivs_give_the_same_text_and_icv_as_numbers_for_explicit_ones() {
    let pairs = [
        (Transform::AesGcm16, Transform::AesGcm16ImplicitIv),
        (
            Transform::ChaCha20Poly1305,
            Transform::ChaCha20Poly1305ImplicitIv,
        ),
    ];
    for engine in engines() {
        for (explicit, implicit) in pairs {
            for key_length in [16, 24, 32] {
                let suites = [explicit, implicit].map(|kind| EspSuite::new(kind, key_length));
                let [Some(explicit), Some(implicit)] = suites else {
                    assert_eq!(
                        (explicit, key_length == 32),
                        (Transform::ChaCha20Poly1305, false)
                    );
                    continue;
                };
                let [explicit, implicit] = [explicit, implicit].map(|suite| key(engine, suite, 7));
                for (low, high) in [(5u32, None), (5, Some(0)), (u32::MAX, Some(0x0102_0304))] {
                    // With 32-bit numbers the high half of the IV is zero.
                    let number = u64::from(high.unwrap_or(0)) << 32 | u64::from(low);
                    let header = [&[1, 2, 3, 4], &low.to_be_bytes()[..]].concat();
                    let text = vec![0x77; 64];
                    let icv = [0; ICV_LENGTH];
                    let iv = number.to_be_bytes();
                    let mut long = [&header[..], &iv, &text, &icv].concat();
                    let mut short = [&header[..], &text, &icv].concat();
                    assert!(seal_one(&explicit, &mut long, high));
                    assert!(seal_one(&implicit, &mut short, high));
                    assert_eq!(long[16..], short[8..]);
                    assert!(open_one(&implicit, &mut short, high));
                    assert_eq!(short[8..72], text);
                }
            }
        }
    }
}

/// draft-mcgrew-gcm-test-01, the AES-GMAC case.
#[test]
fn rfc4543_every_engine_gives_the_packet_with_gmac() {
    let material = KeyMaterial::new(&octets("4c80cdefbb5d10da906ac73c3613a63422433c64"));
    let packet = "0000432100000007000000000000000045000030da3a00008001df3bc0a80005\
                  c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f7071727374\
                  01020201";
    let tag = octets("f2a9a836e155106aa8dcd618e4099aaa");
    for engine in engines() {
        let key = EspKey::new(engine, EspSuite::Aes128Gmac, &material).unwrap();
        let mut esp = [octets(packet), vec![0; ICV_LENGTH]].concat();
        assert!(seal_one(&key, &mut esp, None));
        assert_eq!(esp, [octets(packet), tag.clone()].concat(), "{engine:?}");
        assert!(open_one(&key, &mut esp, None));
        assert_eq!(esp[..esp.len() - ICV_LENGTH], octets(packet));
    }
}

/// RFC 4543 section 3.3, figure 4: with ESN the whole number, then IV and text are authenticated.
#[test]
fn rfc4543_section_3_3_gmac_with_esn_covers_the_whole_number_the_iv_and_the_text() {
    for key_length in [16, 24, 32] {
        let suite = EspSuite::new(Transform::AesGmac, key_length).unwrap();
        for length in [4, 20, 64, 100] {
            let text: Vec<u8> = (0..length).collect();
            let aad = [&[1, 2, 3, 4, 0, 0, 0, 9, 5, 6, 7, 8][..], &[9; 8], &text].concat();
            let expected = oracle(suite, 7, [9; 8], &aad, &mut []);
            for engine in engines() {
                let key = key(engine, suite, 7);
                let icv = [0; ICV_LENGTH];
                let mut esp = [&[1, 2, 3, 4, 5, 6, 7, 8][..], &[9; 8], &text, &icv].concat();
                let (clear, start) = (esp.clone(), esp.len() - ICV_LENGTH);
                assert!(seal_one(&key, &mut esp, Some(9)));
                assert_eq!(esp[start..], expected);
                assert_eq!(esp[..start], clear[..start], "the packet stays in clear");
                assert!(!open_one(&key, &mut esp.clone(), Some(8)));
                assert!(!open_one(&key, &mut esp.clone(), None));
                assert!(open_one(&key, &mut esp, Some(9)));
                assert_eq!(esp[..start], clear[..start]);
            }
        }
    }
}

#[test]
fn every_engine_gives_the_vectors_of_the_gcm_specification() {
    for [key, nonce, aad, plain, cipher, tag] in GCM.map(|v| v.map(octets)) {
        let iv: [u8; IV_LENGTH] = nonce[4..].try_into().unwrap();
        let suite = EspSuite::new(Transform::AesGcm16, key.len()).unwrap();
        for engine in [Engine::AwsLc, Engine::AesGcm] {
            let esp_key = Combined::new(engine, suite, &key, &nonce[..4]).unwrap();
            let mut text = plain.clone();
            let icv = esp_key.seal(iv, &aad, &mut text).unwrap();
            assert_eq!(
                (&text, icv.as_slice()),
                (&cipher, tag.as_slice()),
                "{engine:?}"
            );
            assert!(esp_key.open(iv, &aad, &mut text, &icv));
            assert_eq!(text, plain);
        }
    }
}

#[test]
fn rfc3602_section_4_aes_cbc() {
    for [key, iv, plain, cipher] in CBC.map(|v| v.map(octets)) {
        let suite = EspSuite::new(Transform::AesCbcHmacSha256, key.len()).unwrap();
        let material = KeyMaterial::new(&[&key[..], &[7; 32]].concat());
        let key = EspKey::new(Engine::default(), suite, &material).unwrap();
        let packet = |text: &[u8]| [&[0; 8], &iv[..], text, &[0; ICV_LENGTH]].concat();
        let mut esp = packet(&plain);
        assert!(seal_one(&key, &mut esp, None));
        let end = esp.len() - ICV_LENGTH;
        assert_eq!(esp[..end], packet(&cipher)[..end]);
        assert!(open_one(&key, &mut esp, None));
        assert_eq!(esp[24..end], plain);
    }
}

#[test]
fn rfc4868_section_2_7_2_hmac_sha2_256_128() {
    for [key, data, icv] in HMAC.map(|v| v.map(octets)) {
        let cbc = Cbc::new(hmac::HMAC_SHA256, &[1; 16], &key).unwrap();
        assert_eq!(cbc.tag(&data, None).as_ref()[..16], icv);
        // RFC 4303 section 3.3.2.1: the high half as if it stood behind the packet.
        let (front, high) = data.split_last_chunk().unwrap();
        let tag = cbc.tag(front, Some(u32::from_be_bytes(*high)));
        assert_eq!(tag.as_ref()[..16], icv);
    }
}

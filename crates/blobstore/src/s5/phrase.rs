//! From a seed phrase to the key of an account at a portal.
//!
//! The phrase of s5.js and lib5 has 15 words of a list of 1024, each known by its first three letters. Words 1 to 12 give
//! 10 bits each, word 13 gives 8: a seed of 16 bytes. Words 14 and 15 are the first 20 bits of its BLAKE3.

use crate::Hash;
use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::SigningKey;

/// Three letters for each word, in order.
const PREFIXES: &str = "\
    abaabiablaboabrabsabuacaaccachaciacqacractadaaddadjadmadoaduadvaffafraftagaageagoagraheairaisalaalb\
    alcaliallalmaloalralsaltalwamaamiamoanaancanganiankannanoansanxanyapaapoappareargariarmaroarrartasi\
    aslaspassatoattaucaudaunautaveavoawaawfbabbacbadbakbalbanbarbasbatbeabecbedbeebefbegbehbeibelbenbes\
    betbeybiabikbilbinbiobirbisbitbizblablebliblobluboabodboibolbombonbooborbosbotboubowboxboybrabrebri\
    brobrububbucbudbugbuibulbunburbusbutbuycabcafcagcakcalcamcancapcarcascatcaucavceaceicelcencerchache\
    chichochrchucircitcivclacleclicloclucoacoccodcofcoicolcomconcoocopcorcoscotcoucovcowcracrecricrocru\
    crycueculcupcurcuscutcycdaddaidamdandardatdawdaydeadebdecdeedefdegdeldemdendepdesdetdevdiadicdiedif\
    digdildindipdirdisdivdocdogdoldomdondoodosdoudowdozdradredridrodrudryducdumdurdusdutdyidyneaceagear\
    easeatechecoedgediedueffeggegoeitelbeldeleelielsembemeemoempenaendeneenfengenhenjenoensentepiequerr\
    escessestetheveevievoexaexcexeexhexiexoexpexteyefabfacfadfaifalfamfanfarfasfatfaufavfeafedfeefelfem\
    fenfevfewfibficfiefigfilfinfirfisfitfixflaflefliflofluflyfocfogfolfooforfosfrafrefrifrofrufuefulfun\
    furfutgaigalgamgangargatgaygazgeagengesghogiagifgirgivglagliglogoagolgoogosgovgragregrigroguaguegui\
    gulgutguygymhabhaihalhamhanhapharhathauhavhazheaheeheihelhenherhidhighilhimhinhiphirhishocholhomhon\
    hoohophorhoshothouhowhughumhunhurhusiceicoideignimaimmimpincindinfinhiniinjinminninpinqinsintinviro\
    islisoissiteitsjacjaijawjazjeajewjobjoijokjoujoyjudjuijumjunjurjuskeekeykickilkinkiskitknekniknolab\
    lacladlaklamlanlarlaslatlaulaylealeclefleglemlenlesletlevlibliclifligliklimlinlioliqlislitlivloalob\
    locloglonloolorloslotloulovlowloyluclunmacmadmagmaimajmakmalmammanmarmatmaxmaymeamedmeemelmemmenmer\
    mesmetmidmigmilminmirmismixmobmodmommonmoomormosmotmoumovmucmudmurmusmutmysmytnainaknamnarnasnatnav\
    neanecneeneinernesnetneunevnewnexnicnignobnoinomnonnoonornosnotnovnownucnumnurnutoakobjobsobtobvocc\
    oceoddoffoftokaoldoncongonionlontopeopioppoptoraorbordorgoriothougounouroutoveownoxypacpagpaipalpan\
    papparpaspatpaupaypeapeepenpeopepperpetphaphophrphypiapicpiepilpinpiopippitpizplapleploplupocpoepoi\
    pokpolponpoopopporpospotpoupovpowpraprepripropubpulpumpunpurpusputpuzquaquequiquorabracradragrairal\
    ranraprarratrearebrecredrefregrejrelremrenrepreqresretrevrewrhyribricridrifrigrinriorisritrivroarob\
    rocrolromrooroprouroyrubruirulrumrunrurrussacsafsaisalsamsansatsausavsayscasceschsciscoscrseasecsee\
    segseiselsemsensersessetsevshasheshishoshrshushysibsicsidsigsilsimsinsissitsizskiskuskyslasleslislo\
    smasmesmismosnasnesnosoasocsodsofsoisolsomsonsoosorsouspaspesphspisplsposprspysqustastestistostrstu\
    stysubsucsudsufsugsuisumsunsupsursusswasweswiswosymsystabtactaitaktaltantaptartastaxteatecteeteltem\
    tentertestexthathethithothrthutictidtigtiltimtintirtistittobtodtoitoltomtontootoptostottoutowtoxtoy\
    tratretritrotrutrytubtuctumtunturtwetwitypuglunauncundunfunhuniunkunluntunuupdupouppupsurburguseusu\
    utivacvalvanvarvasvehvenvervesvetvicvidvievilviovirvisvitvoivolvotwagwaiwakwalwanwarwaswatwavwaywea\
    webwedweeweiwelweswhawhewhiwhowhywidwifwilwinwipwirwiswitwolwomwonwooworwouwrawriwroyaryeayelyieyou\
    zon";

/// Says that the account seed below belongs to this program.
const ACCOUNT: &[u8] = b"hybridvec portal account ";

/// The key of the account at `authority` (`host[:port]`) that a seed gives. A seed is one of
/// - 64 hexadecimal digits: the secret of the key itself,
/// - 15 words: the account seed is made of the authority, so that the same words give the same account again,
/// - 15 words and 64 hexadecimal digits: the account seed of an account that another program made.
///
/// # Errors
/// What is wrong with it, in words that do not repeat it.
pub fn key(seed: &str, authority: &str) -> Result<SigningKey, &'static str> {
    let words: Vec<&str> = seed.split_whitespace().collect();
    let account_seed = match words.as_slice() {
        [secret] => {
            return Ok(SigningKey::from_bytes(&hex(secret).ok_or("is neither 15 words nor 64 hexadecimal digits")?));
        }
        [_, .., last] if words.len() == 16 => hex(last).ok_or("has a 16th word that is not 64 hexadecimal digits")?,
        _ if words.len() == 15 => *blake3::hash(&[ACCOUNT, authority.as_bytes()].concat()).as_bytes(),
        _ => return Err("is neither 15 words nor 64 hexadecimal digits"),
    };
    let root = *blake3::hash(&entropy(words.get(..15).unwrap_or_default())?).as_bytes();
    Ok(account_key(&portal_accounts(&root), &account_seed))
}

/// The key of the account with this account seed.
pub fn account_key(portal_accounts: &Hash, account_seed: &Hash) -> SigningKey {
    SigningKey::from_bytes(blake3::hash(&[&portal_accounts[..], account_seed].concat()).as_bytes())
}

/// The seed of all accounts at portals of an identity.
pub fn portal_accounts(root: &Hash) -> Hash {
    let main = derived(root, 0);
    derived(&derived(&derived(&main, 64), 0), 65)
}

/// `blake3(base, n as 32 bytes, little-endian)`.
fn derived(base: &Hash, n: u8) -> Hash {
    let mut number = [0; 32];
    number[0] = n;
    *blake3::hash(&[&base[..], &number].concat()).as_bytes()
}

/// The 16 bytes that 15 words stand for.
pub fn entropy(words: &[&str]) -> Result<[u8; 16], &'static str> {
    let numbers: Vec<u16> =
        words.iter().map(|word| number(word)).collect::<Option<_>>().ok_or("has an unknown word")?;
    let (&[a, b], numbers) = numbers.split_last_chunk::<2>().map(|(rest, last)| (last, rest)).ok_or("is too short")?;
    let mut bytes = [0; 16];
    let mut bits = 0_usize;
    for (position, number) in numbers.iter().enumerate() {
        let width = if position == 12 { 8 } else { 10 };
        if number >> width != 0 || position > 12 {
            return Err("is not a seed phrase: its 13th word cannot stand there");
        }
        for bit in (0..width).rev() {
            if let Some(byte) = bytes.get_mut(bits / 8) {
                *byte |= u8::from(number >> bit & 1 == 1) << (7 - bits % 8);
            }
            bits += 1;
        }
    }
    let check = blake3::hash(&bytes);
    let [first, second, third, ..] = *check.as_bytes();
    let expected = u32::from(first) << 12 | u32::from(second) << 4 | u32::from(third) >> 4;
    if u32::from(a) << 10 | u32::from(b) != expected {
        return Err("is not a seed phrase: the last two words do not fit the others");
    }
    Ok(bytes)
}

/// Place of a word in the list.
fn number(word: &str) -> Option<u16> {
    let prefix = word.get(..3)?.to_ascii_lowercase();
    let position = PREFIXES.as_bytes().chunks(3).position(|known| known == prefix.as_bytes())?;
    u16::try_from(position).ok()
}

fn hex(text: &str) -> Option<Hash> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}
